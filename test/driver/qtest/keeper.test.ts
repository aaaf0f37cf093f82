/**
 * The device process is killed while bytes move at native speed, so that kills land within its system calls: what it has
 * moved and not noted is known from the kernel's receipt. No guest; our driver half fills the rings. Needs the build.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import type { Chardev, ChardevEnd } from '../../../src/chardev/chardev.ts'
import { IOVEC_MAX, type Iovec } from '../../../src/mem/iovec.ts'
import { until } from '../../machine/rig.ts'
import { QtestRig, type QtestRigOptions } from './rig.ts'

const ROUNDS = Number(process.env['VMCHANNEL_KILL_ROUNDS'] ?? 2)
/** One less than what makes the keeper give up. */
const KILLS = 4
/** No batch has this length: what comes twice, or not at all, is seen. */
const TABLE = randomBytes(1_048_573)

/** Says the same endless thing as long as it is asked, and compares what it hears with it. */
class Endless implements Chardev {
  readonly label = 'endless'
  readonly place = undefined
  readonly connected = true
  heard = 0
  said = 0
  wrong: string | undefined
  readonly #end: ChardevEnd

  constructor(end: ChardevEnd) {
    this.#end = end
  }

  writev(list: Iovec): number {
    for (let i = 0; i < Math.min(list.count, IOVEC_MAX); i++)
      this.hear(list.bytes[i]!.subarray(list.offset[i], list.offset[i]! + list.len[i]!))
    return list.total
  }

  readv(list: Iovec): number {
    let sum = 0
    for (let i = 0; i < list.count; i++) {
      const len = list.len[i]!
      for (let done = 0; done < len;) {
        const at = (this.said + sum + done) % TABLE.length
        const part = TABLE.subarray(at, Math.min(TABLE.length, at + len - done))
        list.bytes[i]!.set(part, list.offset[i]! + done)
        done += part.length
      }
      sum += len
    }
    this.said += sum
    return sum
  }

  hear(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const at = (this.heard + done) % TABLE.length
      const part = bytes.subarray(done, Math.min(bytes.length, done + TABLE.length - at))
      if (Buffer.compare(part, TABLE.subarray(at, at + part.length)) !== 0)
        this.wrong ??= `wrong bytes after ${this.heard}`
      done += part.length
    }
    this.heard += bytes.length
  }

  setReading(on: boolean): void {
    if (on) queueMicrotask(() => this.#end.readable())
  }
  discardInput(): number {
    return 0
  }
  disconnect(): void {}
  close(): void {}
}

/** Hears the table from anywhere, and notes each jump in it: bytes that came again, bytes that are missing. */
class Jumps {
  heard = 0
  repeated = 0
  missing = 0
  #at = 0
  #rest: Buffer = Buffer.alloc(0)

  hear(chunk: Buffer): void {
    let bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk
    this.#rest = Buffer.alloc(0)
    this.heard += chunk.length
    while (bytes.length > 0) {
      const part = bytes.subarray(0, TABLE.length - this.#at)
      let same = 0
      if (part.equals(TABLE.subarray(this.#at, this.#at + part.length))) same = part.length
      else while (part[same] === TABLE[this.#at + same]) same++
      this.#at = (this.#at + same) % TABLE.length
      bytes = bytes.subarray(same)
      if (same === part.length) continue
      if (bytes.length < 64) return void (this.#rest = bytes)
      const found = Buffer.concat([TABLE, TABLE.subarray(0, 64)]).indexOf(bytes.subarray(0, 64))
      if (found === -1) throw new Error(`bytes that nobody sent, after ${this.heard - bytes.length}`)
      const back = (this.#at - found + TABLE.length) % TABLE.length
      // A batch is never half of the table.
      if (back < TABLE.length / 2) this.repeated += back
      else this.missing += TABLE.length - back
      this.#at = found
    }
  }
}

describe('kills at native speed', () => {
  let rig: QtestRig | undefined
  afterEach(() => rig?.close())

  it.each([
    ['MSI-X', {}],
    ['INTx', { vectors: 0 }],
  ] as [string, QtestRigOptions][])(
    `${ROUNDS * KILLS} of them, both ways at once: no byte lost, none twice: %s`,
    async (_, options) => {
      rig = await QtestRig.start('ours', { ...options, ports: ['up', 'down'], keeper: true })
      const [up, down] = [await rig.port('up'), await rig.port('down')]
      const peers = [await rig.connect('up'), await rig.connect('down')] as const
      await until(() => up.hostOpen && down.hostOpen, 'the driver hears of its peers')
      const source = up.attach((end) => new Endless(end)) as Endless
      const sink = down.attach((end) => new Endless(end)) as Endless
      const hears = new Endless(down)
      peers[0].on('data', (bytes: Buffer) => hears.hear(bytes)).resume()
      let sent = 0
      const push = (): void => {
        for (let more = true; more;) {
          const at = sent % TABLE.length
          const part = TABLE.subarray(at, Math.min(TABLE.length, at + 65_536))
          sent += part.length
          more = peers[1].write(part)
        }
      }
      peers[1].on('drain', push)
      push()
      source.setReading(true)
      for (let round = 0; round < ROUNDS; round++) {
        for (let i = 0; i < KILLS; i++) {
          await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 150))
          const before = [hears.heard, sink.heard] as const
          await rig.host.kill()
          await until(() => hears.heard > before[0] + (1 << 20) && sink.heard > before[1] + (1 << 20), 'it goes on')
          expect(hears.wrong ?? sink.wrong).toBeUndefined()
        }
        await new Promise((resolve) => setTimeout(resolve, 1200))
      }
      const seen = [hears.heard, sink.heard] as const
      const stats = await rig.host.stats()
      expect(stats.map(({ restarts }) => restarts)).toEqual([ROUNDS * KILLS, ROUNDS * KILLS])
      expect(stats.map(({ counters }) => counters.guestToHostRepeated)).toEqual([0, 0])
      const [first, second] = stats
      // Counted after the fact: a kill may cost the count of a batch.
      const slack = ROUNDS * KILLS * 2 ** 20
      expect(first!.counters.guestToHostBytes).toBeGreaterThanOrEqual(seen[0] - slack)
      expect(second!.counters.hostToGuestBytes).toBeGreaterThanOrEqual(seen[1] - slack)
      expect(rig.driver.faults).toBe(0)
      console.log(
        `${Math.round(hears.heard / 2 ** 20)} MiB to the host, ${Math.round(sink.heard / 2 ** 20)} MiB to the guest`,
      )
    },
    120_000 + ROUNDS * 30_000,
  )

  it(
    'pipes write no receipts: what may have come twice or not at all is counted, and it is no more',
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'vmch-pipe-'))
      const path = join(folder, 'pipe')
      execFileSync('mkfifo', [`${path}.in`, `${path}.out`])
      rig = await QtestRig.start('ours', { keeper: true })
      await rig.addPort('pipe', { chardev: `pipe:${path}` })
      const port = await rig.port('pipe')
      const guest = new Jumps()
      const host = new Jumps()
      const output = createReadStream(`${path}.out`).on('data', (chunk) => host.hear(chunk as Buffer))
      const input = createWriteStream(`${path}.in`).on('error', () => {})
      try {
        await until(() => port.hostOpen, 'the driver hears of the pipe')
        const program = port.attach((end) => {
          const endless = new Endless(end)
          endless.hear = (bytes) => guest.hear(Buffer.from(bytes))
          return endless
        }) as Endless
        let at = 0
        const push = (): void => {
          for (let more = !input.destroyed; more;) {
            const part = TABLE.subarray(at, Math.min(TABLE.length, at + 65_536))
            at = (at + part.length) % TABLE.length
            more = input.write(part)
          }
        }
        input.on('drain', push)
        push()
        program.setReading(true)
        for (let i = 1; i <= ROUNDS * KILLS; i++) {
          await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 150))
          const before = [host.heard, guest.heard] as const
          await rig.host.kill()
          await until(() => host.heard > before[0] + (1 << 20) && guest.heard > before[1] + (1 << 20), 'it goes on')
          if (i % KILLS === 0) await new Promise((resolve) => setTimeout(resolve, 1200))
        }
        const { counters } = (await rig.host.stats())[0]!
        const seen = { ...{ repeated: host.repeated, lost: guest.missing }, kills: ROUNDS * KILLS }
        console.log(
          `pipe: ${JSON.stringify({ ...seen, counted: [counters.guestToHostRepeated, counters.hostToGuestDropped] })}`,
        )
        expect([host.missing, guest.repeated]).toEqual([0, 0])
        expect(host.repeated).toBeLessThanOrEqual(counters.guestToHostRepeated)
        expect(guest.missing).toBeLessThanOrEqual(counters.hostToGuestDropped)
        expect(rig.driver.faults).toBe(0)
      } finally {
        input.destroy()
        output.destroy()
        rmSync(folder, { recursive: true, force: true })
      }
    },
    120_000 + ROUNDS * 30_000,
  )
})
