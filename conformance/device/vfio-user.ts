/** The server that a VMM talks to: what it makes of a VMM that lies (vfio-user, as QEMU 10.1 to 11.1 speaks it). */

import { closeSync, ftruncateSync, readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { createEventfd } from '../../src/ffi/eventfd.ts'
import { createMemfd } from '../../src/ffi/mmap.ts'
import { access, concat, FakeVmm, message, turn, u32, u64, type FakeMessage } from '../../test/support/fake-vmm.ts'
import { check, Finding, NotApplicable, same, type Case } from '../case.ts'
import type { VfioUserEnd } from '../raw/machine.ts'
import type { DeviceTest } from '../raw/test.ts'

const VERSION = 1
const DMA_MAP = 2
const DMA_UNMAP = 3
const GET_INFO = 4
const REGION_INFO = 5
const IRQ_INFO = 7
const SET_IRQS = 8
const READ = 9
const WRITE = 10
const CONFIG = 7
const MSIX = 2
const EVENTFD_TRIGGER = 0x24

class Attacker {
  readonly #end: VfioUserEnd
  readonly #patience: number

  constructor(end: VfioUserEnd, patience: number) {
    this.#end = end
    this.#patience = patience
  }

  /** In time, or a finding. */
  async #soon<T>(what: string, promise: Promise<T>): Promise<T> {
    const timeout = new AbortController()
    const late = sleep(this.#patience, undefined, { signal: timeout.signal }).then(() => {
      throw new Finding(`${what}: no answer, and nobody hung up`)
    })
    late.catch(() => {})
    try {
      return await Promise.race([promise, late])
    } finally {
      timeout.abort()
    }
  }

  attach(): Promise<FakeVmm> {
    // The one before may not have been noticed to be gone.
    const tries = async (): Promise<FakeVmm> => {
      for (const end = Date.now() + this.#patience; ;) {
        try {
          return await FakeVmm.attach(this.#end.path)
        } catch (error) {
          if (Date.now() > end) throw new Finding(`no VMM can attach any more: ${String(error)}`, { cause: error })
          await sleep(5)
        }
      }
    }
    return this.#soon('VERSION', tries())
  }

  /** An answer with an error, or the end of the connection. */
  async refused(what: string, command: number, payload: Uint8Array, fds: readonly number[] = []): Promise<void> {
    const vmm = await this.attach()
    try {
      const reply = await this.#soon(
        what,
        vmm.request(command, payload, fds).catch(() => undefined),
      )
      check(reply === undefined || reply.errno !== 0, `${what}: answered as if all were well`)
    } finally {
      vmm.close()
    }
  }

  /** These bytes, and then the end of the connection; an answer with an error is as good. */
  async fatal(what: string, bytes: Uint8Array): Promise<void> {
    const vmm = await this.attach()
    try {
      await vmm.send(bytes).catch(() => {})
      const reply = await this.#soon<FakeMessage | undefined>(what, vmm.next())
      check(reply === undefined || reply.errno !== 0, `${what}: answered as if all were well`)
    } finally {
      vmm.close()
    }
  }

  /** Bytes, and then nobody. */
  async vanish(bytes: Uint8Array, fds: readonly number[]): Promise<void> {
    const vmm = await this.attach()
    await vmm.send(bytes, fds).catch(() => {})
    await turn()
    vmm.close()
  }

  get fds(): number | undefined {
    return this.#end.pid === undefined ? undefined : readdirSync(`/proc/${this.#end.pid}/fd`).length
  }

  /** The next VMM is served, and nothing of the others is left. */
  async works(fds: number | undefined): Promise<void> {
    const vmm = await this.attach()
    const reply = await this.#soon('a read of configuration space', vmm.request(READ, access(CONFIG, 0, 4)))
    same(reply.errno, 0, 'errno of a read of configuration space')
    same(reply.payload.subarray(16).readUInt16LE(0), 0x1af4, 'vendor id')
    vmm.close()
    if (fds === undefined) return
    const end = Date.now() + this.#patience
    while (this.fds !== fds && Date.now() < end) await sleep(5)
    same(this.fds, fds, 'open descriptors of the device process, before and after')
  }
}

/** Parts against a server that is clean before and after. */
async function attack(
  test: DeviceTest,
  parts: (attacker: Attacker) => Record<string, () => Promise<void>>,
): Promise<void> {
  const end = await test.machine.vfioUser()
  if (!end) throw new NotApplicable('the device is not reached over vfio-user here')
  const attacker = new Attacker(end, test.machine.patience)
  await attacker.works(undefined)
  await sleep(50)
  const fds = attacker.fds
  await test.parts(parts(attacker))
  await attacker.works(fds)
}

const versionJson = (json: string | Uint8Array): Buffer => concat(u32(0), Buffer.from(json as string))
const irqs = (flags: number, index: number, start: number, count: number, argsz = 20): Buffer =>
  concat(u32(argsz), u32(flags), u32(index), u32(start), u32(count))
const map = (flags: number, offset: number | bigint, iova: number | bigint, len: number | bigint, argsz = 32): Buffer =>
  concat(u32(argsz), u32(flags), u64(offset), u64(iova), u64(len))

export const VFIO_USER_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'E1',
    run: (test) =>
      attack(test, (vmm) => ({
        'a size below the header, or of gigabytes': async () => {
          for (const size of [0, 1, 15, 0x7fff_ffff, 0xffff_ffff])
            await vmm.fatal(`size ${size}`, message(1, READ, access(CONFIG, 0, 4), 0, size))
        },
        'a payload shorter than its command needs': async () => {
          for (const command of [DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO, SET_IRQS, READ, WRITE])
            for (const len of [0, 3, 11])
              await vmm.refused(`command ${command} with ${len} bytes`, command, Buffer.alloc(len, 0xff))
        },
        'more data than there is': async () => {
          await vmm.refused('a write of 2^32 - 16 bytes', WRITE, access(0, 0, 0xffff_fff0, Buffer.alloc(16)))
          await vmm.refused('a write of 4 bytes with 3', WRITE, access(CONFIG, 4, 4, Buffer.alloc(3)))
        },
        'commands that are none': async () => {
          for (const command of [0, 14, 17, 255, 0xffff])
            await vmm.refused(`command ${command}`, command, Buffer.alloc(64))
        },
        'a second VERSION': () => vmm.refused('VERSION again', VERSION, versionJson('{}\0')),
        'replies that nobody asked for': async () => {
          const peer = await vmm.attach()
          for (let i = 0; i < 200; i++)
            await peer.send(message(i, 11, Buffer.alloc(5000), i % 2 ? 0x21 : 1)).catch(() => {})
          peer.close()
        },
        'JSON of thousands of levels, or of 100 KB': async () => {
          for (const json of [
            `${'['.repeat(4000)}\0`,
            `${'{"a":'.repeat(2000)}\0`,
            `{"x":"${'y'.repeat(100_000)}"}\0`,
            '\0',
            'null\0',
          ]) {
            const peer = new FakeVmm((await test.machine.vfioUser())!.path)
            await peer.send(message(1, VERSION, versionJson(json))).catch(() => {})
            await turn()
            peer.close()
          }
        },
      })),
  },
  {
    id: 'E2',
    run: (test) =>
      attack(test, (vmm) => ({
        'outside a region': async () => {
          for (const [region, offset, count] of [
            [CONFIG, 0x1_0000, 4],
            [CONFIG, 0xfffd, 8],
            [4, 0xffff_ffff_ffff_ffffn, 1],
            [4, 0xffff_ffff_ffff_fffcn, 8],
            [4, 0x1_0000_0000n, 4],
            [4, 0xffff_ffff, 0xffff_ffff],
          ] as const) {
            await vmm.refused(
              `a read of ${count} at ${offset} of region ${region}`,
              READ,
              access(region, offset, count),
            )
            if (count < 100)
              await vmm.refused(`a write there`, WRITE, access(region, offset, count, Buffer.alloc(count)))
          }
        },
        'more than a message holds': async () => {
          await vmm.refused('a read of 1 MiB and 1', READ, access(4, 0, (1 << 20) + 1))
          await vmm.refused('a read of 2^32 - 1', READ, access(4, 0, 0xffff_ffff))
        },
        'regions that are none': async () => {
          for (const region of [9, 100, 0xffff_ffff]) {
            await vmm.refused(`region ${region}`, READ, access(region, 0, 4))
            await vmm.refused(
              `a question about region ${region}`,
              REGION_INFO,
              concat(u32(32), u32(0), u32(region), u32(0), u64(0), u64(0)),
            )
          }
        },
        'what is read-only': async () => {
          const peer = await vmm.attach()
          await peer.request(WRITE, access(CONFIG, 0, 4, Buffer.alloc(4, 0xff)))
          await peer.request(WRITE, access(CONFIG, 8, 4, Buffer.alloc(4, 0xff)))
          const reply = await peer.request(READ, access(CONFIG, 0, 4))
          same(reply.payload.subarray(16).readUInt16LE(0), 0x1af4, 'vendor id after it was written')
          peer.close()
        },
        'sizing of BARs': async () => {
          const peer = await vmm.attach()
          for (let bar = 0; bar < 6; bar++)
            await peer.request(WRITE, access(CONFIG, 0x10 + 4 * bar, 4, Buffer.alloc(4, 0xff)))
          for (let bar = 0; bar < 6; bar++) {
            const reply = await peer.request(READ, access(CONFIG, 0x10 + 4 * bar, 4))
            check(reply.payload.length === 20, `BAR ${bar} cannot be read`)
          }
          peer.close()
        },
      })),
  },
  {
    id: 'E3',
    run: (test) =>
      attack(test, (vmm) => ({
        'interrupts out of range': async () => {
          for (const [index, start, count] of [
            [MSIX, 0, 0xffff_ffff],
            [MSIX, 0xffff_ffff, 1],
            [MSIX, 0xffff_ffff, 0xffff_ffff],
            [MSIX, 2048, 1],
            [5, 0, 1],
            [0xffff_ffff, 0, 1],
          ] as const)
            await vmm.refused(
              `interrupts ${start} + ${count} of ${index}`,
              SET_IRQS,
              irqs(EVENTFD_TRIGGER, index, start, count),
            )
        },
        'interrupts with the wrong number of descriptors, or with none that fire': async () => {
          const eventfd = createEventfd()
          const ram = createMemfd('no-eventfd', true)
          try {
            await vmm.refused('3 interrupts with one descriptor', SET_IRQS, irqs(EVENTFD_TRIGGER, MSIX, 0, 3), [
              eventfd,
            ])
            await vmm.refused('a file in place of an eventfd', SET_IRQS, irqs(EVENTFD_TRIGGER, MSIX, 0, 1), [ram])
            await vmm.refused('two kinds of data at once', SET_IRQS, irqs(0x27, MSIX, 0, 1), [eventfd])
          } finally {
            closeSync(eventfd)
            closeSync(ram)
          }
        },
        'maps that wrap, overlap, or are longer than their file': async () => {
          const ram = createMemfd('short', true)
          ftruncateSync(ram, 1 << 20)
          try {
            for (const [what, payload] of Object.entries({
              'a map around 2^64': map(3, 0, 0xffff_ffff_ffff_f000n, 0x2000),
              'a file offset around 2^64': map(3, 0xffff_ffff_ffff_f000n, 0, 0x2000),
              'an empty map': map(3, 0, 0, 0),
              'a map past the end of its file': map(3, 0, 0, 2 << 20),
              'a map that starts past the end of its file': map(3, 4 << 20, 0, 4096),
              'a map of half a page': map(3, 0, 0, 2048),
              'argsz 0': map(3, 0, 0, 4096, 0),
            }))
              await vmm.refused(what, DMA_MAP, payload, [ram])
            const peer = await vmm.attach()
            same((await peer.request(DMA_MAP, map(3, 0, 0, 1 << 20), [ram])).errno, 0, 'errno of an honest map')
            check(
              (await peer.request(DMA_MAP, map(3, 0, 0x8_0000, 1 << 20), [ram])).errno !== 0,
              'a map over another is taken',
            )
            check(
              (await peer.request(DMA_UNMAP, concat(u32(24), u32(0), u64(0x1000), u64(0x1000)))).errno !== 0,
              'a part of a map can be unmapped',
            )
            peer.close()
          } finally {
            closeSync(ram)
          }
        },
        'thousands of maps': async () => {
          const ram = createMemfd('many', true)
          ftruncateSync(ram, 1 << 20)
          const peer = await vmm.attach()
          try {
            for (let i = 0; i < 2000; i++) {
              const { errno } = await peer.request(DMA_MAP, map(3, 4096 * (i % 256), 8192 * i, 4096), [ram])
              if (errno !== 0) break
            }
          } finally {
            peer.close()
            closeSync(ram)
          }
        },
        'descriptors that nobody wants': async () => {
          const eventfd = createEventfd()
          try {
            for (const count of [1, 16, 17, 200])
              for (const command of [GET_INFO, READ, 13, 0xffff])
                await vmm.vanish(message(1, command, access(CONFIG, 0, 4)), new Array<number>(count).fill(eventfd))
          } finally {
            closeSync(eventfd)
          }
        },
        'a VMM that vanishes in the middle of a message': async () => {
          const eventfd = createEventfd()
          try {
            const whole = message(1, SET_IRQS, irqs(EVENTFD_TRIGGER, MSIX, 0, 1))
            for (const len of [1, 8, 15, 16, 20, whole.length - 1]) await vmm.vanish(whole.subarray(0, len), [eventfd])
          } finally {
            closeSync(eventfd)
          }
        },
        'a second VMM while one is there': async () => {
          const first = await vmm.attach()
          const { path } = (await test.machine.vfioUser())!
          const second = new FakeVmm(path)
          const reply = await second.version().catch(() => undefined)
          check(reply === undefined || reply.errno !== 0, 'two VMMs were given one device')
          second.close()
          same((await first.request(READ, access(CONFIG, 0, 4))).errno, 0, 'errno of the first VMM')
          first.close()
        },
      })),
  },
]
