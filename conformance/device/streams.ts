/** Bytes under pressure: peers that do not read, guests without buffers, floods in both directions. */

import { readFileSync } from 'node:fs'
import { CONSOLE_BAD_ID, transmitqOf, VIRTIO_CONSOLE_DEVICE_READY } from '../../src/spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT } from '../../src/spec/features.ts'
import { PAGE_LEN } from '../../test/support/raw-queue.ts'
import { check, NotApplicable, same, type Case } from '../case.ts'
import type { PortInfo } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

const MIB = 1 << 20
/** What a flood may cost: more than any bounded buffer, far less than the flood. */
const GROWTH_MAX = 16 * MIB
/** Of a buffer that a socket with room for less takes in part. */
const ODD_LEN = 3001

/** Bytes of memory that the device's process has. */
function resident(test: DeviceTest): number {
  if (test.machine.pid === undefined) throw new NotApplicable('the device runs in the process of the driver')
  const found = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${test.machine.pid}/status`, 'latin1'))
  return Number(found![1]) * 1024
}

async function grows(test: DeviceTest, what: string, run: () => Promise<void>): Promise<void> {
  const before = resident(test)
  await run()
  const grown = resident(test) - before
  check(grown < GROWTH_MAX, `${what} made the device grow by ${Math.round(grown / MIB)} MiB`)
}

/**
 * Fills the transmitq as fast as buffers come back, with bytes that know their place; stops when it stands. Buffers of
 * `len` bytes: whole pages end where a socket's own pieces end, and are then never taken in part.
 */
async function flood(test: DeviceTest, port: PortInfo, total: number, len = PAGE_LEN): Promise<number> {
  const queue = test.transmitq(port.id)
  const busy = new Set<number>()
  let sent = 0
  for (let idle = 0; sent < total && idle < 20;) {
    for (const { id } of queue.takeUsed()) busy.delete(id)
    let posted = 0
    for (let page = 0; page < queue.size && sent < total; page++) {
      if (busy.has(page)) continue
      pattern(queue.page(page).subarray(0, len), sent)
      queue.desc(page, queue.pageAddress(page), len, 0)
      queue.avail(page)
      busy.add(page)
      sent += len
      posted++
    }
    if (posted > 0) queue.notify()
    idle = posted > 0 ? 0 : idle + 1
    await test.settle()
  }
  return sent
}

function pattern(bytes: Uint8Array, at: number): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = patternByte(at + i)
}
function patternByte(at: number): number {
  return (at ^ (at >> 8) ^ (at >> 16)) & 0xff
}
function checkPattern(bytes: Uint8Array): void {
  const wrong = bytes.findIndex((byte, at) => byte !== patternByte(at))
  check(wrong === -1, `byte ${wrong} of ${bytes.length} is another than was sent`)
}

async function hostFlood(test: DeviceTest): Promise<void> {
  await test.up()
  const { port, peer } = await test.channel()
  const queue = test.receiveq(port.id)
  const bytes = Buffer.alloc(32 * MIB, 'flood ')
  peer.write(bytes)
  for (let i = 0; i < 20; i++) await test.settle()
  same(queue.usedIdx, 0, 'used.idx of a receiveq without buffers')
  check(peer.waiting() > 0, `the device took ${bytes.length >> 20} MiB off the host that the guest has no buffers for`)
  peer.close()
}

async function guestFlood(test: DeviceTest): Promise<void> {
  await test.up()
  const { port, peer } = await test.channel()
  peer.setReading(false)
  const sent = await flood(test, port, 64 * MIB)
  check(sent > 0, 'no buffer was taken')
  peer.close()
}

/** Without a process of its own only that nothing is taken that has no room can be seen. */
async function bounded(test: DeviceTest, flood: (test: DeviceTest) => Promise<void>): Promise<void> {
  if (test.machine.pid === undefined) return flood(test)
  await grows(test, 'it', () => flood(test))
}

/** Buffers of length 2^32 - 1, as far as there is memory behind them and not. */
async function hugeLen(test: DeviceTest): Promise<void> {
  await test.up()
  const port = test.port()
  await test.open(port)
  const queue = test.transmitq(port.id)
  for (let i = 0; i < 4; i++) queue.chain([{ address: queue.pageAddress(i), len: 0xffff_ffff }])
  queue.notify()
  await test.settle()
  await test.settle()
}

export const STREAM_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'S6',
    async run(test) {
      await test.up()
      const port = test.serial()
      const peer = await test.connect(port)
      const text = 'not one of them is lost'
      peer.write(Buffer.from(text.slice(0, 8))) // closed
      await test.settle()
      await test.open(port)
      await test.settle()
      peer.write(Buffer.from(text.slice(8))) // open, and no buffers
      await test.settle()
      const queue = test.receiveq(port.id)
      let got = ''
      const take = (): void => {
        for (const { id, len } of queue.takeUsed())
          got += Buffer.from(queue.page(id).subarray(0, len)).toString('latin1')
      }
      for (let i = 0; i < text.length && got.length < text.length; i++) {
        queue.postPage(i % queue.size, 3)
        queue.notify()
        await test.until(
          () => (take(), got.length >= Math.min(text.length, 3 * (i + 1)) || queue.usedIdx > i),
          'the next bytes of the host',
        )
      }
      same(got, text, 'what the guest got')
    },
  },
  {
    id: 'S8',
    async run(test) {
      await test.up()
      const port = test.serial()
      const { peer } = await test.channel(port)
      peer.setReading(false)
      const sent = await flood(test, port, 4 * MIB, ODD_LEN)
      peer.setReading(true)
      await test.until(() => peer.received().length >= sent, `${sent} bytes at the host's end`)
      checkPattern(peer.received())
    },
  },
  {
    id: 'S9',
    async run(test) {
      await test.up()
      const { port, peer } = await test.channel()
      const queue = test.receiveq(port.id)
      for (let i = 0; i < 8; i++) queue.postPage(i)
      queue.notify()
      await test.settle()
      for (let i = 0; i < 8; i++) {
        peer.write(Buffer.from(`${i}`))
        await test.until(() => queue.usedIdx > i, `buffer ${i} to be filled`)
        await test.settle()
        same(queue.usedIdx, i + 1, 'buffers used for one byte each')
        same(queue.takeUsed(), [{ id: i, len: 1 }], 'the used entry')
        same(queue.page(i)[0], 0x30 + i, 'its byte')
      }
    },
  },
  {
    id: 'S15',
    async run(test) {
      await grows(test, 'what the guest sends and nobody reads', () => guestFlood(test))
      // What becomes of the device afterwards is A4.
      test.spoiled = true
    },
  },
  {
    id: 'S16',
    async run(test) {
      await grows(test, 'a descriptor of 4 GiB', () => hugeLen(test))
      await test.works()
    },
  },
  {
    id: 'A4',
    async run(test) {
      await test.parts({
        'the host sends, the guest has no buffers': () => bounded(test, hostFlood),
        'the guest sends, the host does not read': () => bounded(test, guestFlood),
        'a driver that starts anew afterwards': () => test.works(),
        'the guest talks, and has no buffer for the answers': async () => {
          test.needs(VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT')
          test.start()
          for (let i = 0; i < 500; i++) await test.say(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
          await test.works()
        },
      })
    },
  },
  {
    id: 'B3',
    async run(test) {
      await test.up()
      const [one, two] = [...test.ports.values()].filter((port) => !port.console)
      if (!one || !two) throw new NotApplicable('the device has fewer than two ports that are no consoles')
      const { peer } = await test.channel(two)
      await test.open(one)
      const queue = test.queue(transmitqOf(one.id))
      queue.avail(queue.size)
      queue.notify()
      await test.until(() => test.needsReset || queue.usedIdx > 0, 'DEVICE_NEEDS_RESET, or the chain back')
      await test.parts({
        'no spinning': async () => {
          if (test.machine.pid === undefined) throw new NotApplicable('the device runs in the process of the driver')
          const before = cpuTicks(test.machine.pid)
          await new Promise((resolve) => setTimeout(resolve, 300))
          const used = cpuTicks(test.machine.pid) - before
          check(used < 20, `${used} of 30 ticks of the processor while there is nothing to do`)
        },
        'the other ports live': async () => {
          test.send(two, 'alive')
          await test.arrives(peer, 'alive')
        },
      })
      peer.close()
      await test.works()
    },
  },
]

/** User and system time of a process in hundredths of a second. */
function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ')
  return Number(fields[11]) + Number(fields[12])
}
