/** What our driver makes of the function's configuration space, capabilities and vectors (§4.1). */

import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import type { PciAccess } from '../../src/driver/pci-registers.ts'
import { PciTransport } from '../../src/driver/pci.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { check, same, type Case } from '../case.ts'
import { COMMON_BAR, DEVICE_CONFIG, type DriverTest } from './test.ts'

const COMMON_CAP = 0x40
const DEVICE_CAP = 0x74
const FREE = 0xc0
const GENERATION = 0x15
const CONFIG_VECTOR = 0x10

/** Natural widths of the common configuration where it is not 4 (§4.1.4.3). */
const WIDTHS: Readonly<Record<number, number>> = {
  ...{ 0x10: 2, 0x12: 2, 0x14: 1, 0x15: 1, 0x16: 2, 0x18: 2, 0x1a: 2, 0x1c: 2, 0x1e: 2 },
}

interface Changes {
  /** Changes configuration space, of which reads are a copy. */
  space?: (space: Uint8Array) => void
  /** Answers a read of the BAR in place of the device. */
  read?: (offset: number, out: Uint8Array) => boolean
}

function access({ space = () => {}, read = () => false }: Changes = {}): PciAccess {
  const memory = new GuestMemory()
  memory.add({ base: 0, size: 0x10000, bytes: new Uint8Array(0x10000), address: 0, writable: true })
  const fn = new VirtioPci(new ConsoleDevice({ maxPorts: 4 }), memory, { vectors: 11 })
  const bytes = new Uint8Array(256)
  fn.readConfig(0, bytes)
  space(bytes)
  return {
    barSizes: fn.barSizes,
    readConfig(offset, out) {
      out.fill(0)
      out.set(bytes.subarray(offset, offset + out.length))
    },
    writeConfig: (offset, data) => fn.writeConfig(offset, data),
    readBar: (bar, offset, out) => void (read(offset, out) || fn.readBar(bar, offset, out)),
    writeBar: (bar, offset, data) => fn.writeBar(bar, offset, data),
  }
}

function transport(changes?: Changes, vectors = 0): PciTransport {
  return new PciTransport(access(changes), { vectors })
}

function refuses(run: () => unknown): boolean {
  try {
    run()
    return false
  } catch {
    return true
  }
}

/** A capability before all others. */
function first(space: Uint8Array, bytes: readonly number[]): void {
  space.set(bytes, FREE)
  space[FREE + 1] = space[0x34]!
  space[0x34] = FREE
}

export const PCI_CASES: readonly Case<DriverTest>[] = [
  {
    id: 'R14',
    run() {
      let reads = 0
      const changing = (until: number) =>
        transport({
          read(offset, out) {
            if (offset === GENERATION) out[0] = Math.min(reads++, until)
            return offset === GENERATION
          },
        })
      const out = new Uint8Array(4)
      changing(3).readConfig(4, out)
      same([...out], [4, 0, 0, 0], 'max_nr_ports')
      check(reads >= 4, `config_generation was read ${reads} times while it changed`)
      check(
        refuses(() => changing(Infinity).readConfig(4, out)),
        'a configuration that never rests is believed',
      )
    },
  },
  {
    id: 'R16',
    run() {
      const longer = transport({ space: (space) => new DataView(space.buffer).setUint32(DEVICE_CAP + 12, 0x800, true) })
      const out = new Uint8Array(4)
      longer.readConfig(4, out)
      same([...out], [4, 0, 0, 0], 'max_nr_ports in a longer configuration')
    },
  },
  {
    id: 'R66',
    run() {
      const device = (id: number, revision: number) => (space: Uint8Array) => {
        space[2] = id & 0xff
        space[3] = id >> 8
        space[8] = revision
      }
      for (const id of [0x1043, 0x1003])
        for (const revision of [0, 1, 2, 255])
          same(
            transport({ space: device(id, revision) }).deviceId,
            3,
            `device id of 0x${id.toString(16)} revision ${revision}`,
          )
      check(
        refuses(() => transport({ space: (space) => (space[0] = 0) })),
        'a device of another vendor is driven',
      )
    },
  },
  {
    id: 'R68',
    run(test) {
      const { accesses } = test.open()
      for (const { kind, bar, offset, len } of accesses) {
        check(offset % len === 0, `a ${kind} of ${len} bytes at 0x${offset.toString(16)} is not aligned`)
        if (bar !== COMMON_BAR || offset >= 0x3c) continue
        same(len, WIDTHS[offset] ?? 4, `width of a ${kind} at 0x${offset.toString(16)} of the common configuration`)
      }
    },
  },
  {
    id: 'R70',
    run(test) {
      const common = transport().structures.common
      for (const [what, bytes] of [
        ['a reserved cfg_type', [9, 0, 16, 77, 4, 0, 0, 0, 0, 0, 0, 0, 0x38, 0, 0, 0]],
        ['a reserved BAR', [9, 0, 16, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0x38, 0, 0, 0]],
        ['a BAR that is not there', [9, 0, 16, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0x38, 0, 0, 0]],
        ['a structure past its BAR', [9, 0, 16, 1, 4, 0, 0, 0, 0, 0xff, 0xff, 0, 0x38, 0, 0, 0]],
      ] as const)
        same(
          transport({ space: (space) => first(space, bytes) }).structures.common,
          common,
          `the common configuration behind ${what}`,
        )
      const better = transport({
        space: (space) => first(space, [9, 0, 16, 1, 4, 0, 0, 0, 0, 0x10, 0, 0, 0x40, 0, 0, 0]),
      })
      same(better.structures.common.offset, 0x1000, 'offset of the first usable common configuration')
      same(
        transport({ space: (space) => (space[COMMON_CAP + 2] = 32) }).structures.common,
        common,
        'one with a longer capability',
      )
      const { accesses } = test.open()
      const writes = accesses.filter(
        ({ kind, bar, offset }) => kind === 'write' && bar === -1 && offset >= 0x40 && offset < 0x98,
      )
      same(writes, [], 'writes to virtio capabilities')
    },
  },
  { id: 'R86', na: 'our driver reaches all structures in their BARs and never uses the window' },
  {
    id: 'R88',
    run() {
      for (const vectors of [1, 2, 4, 11]) {
        const wide = transport({}, vectors)
        wide.writeStatus(3)
        wide.writeDriverFeatures(1n << 32n)
        wide.writeStatus(11)
        wide.connect({ queues() {}, config() {} })
        for (let queue = 0; queue < 5; queue++) wide.enableQueue(queue, 2, { desc: 0, avail: 0x100, used: 0x200 }, true)
      }
      const refusing = transport(
        {
          read(offset, out) {
            if (offset === CONFIG_VECTOR) out.fill(0xff)
            return offset === CONFIG_VECTOR
          },
        },
        2,
      )
      check(
        refuses(() => refusing.connect({ queues() {}, config() {} })),
        'a vector that the device did not map is taken for mapped',
      )
    },
  },
  {
    id: 'R91',
    run() {
      const heard: string[] = []
      const one = transport({}, 1)
      one.writeStatus(3)
      one.writeDriverFeatures(1n << 32n)
      one.writeStatus(11)
      one.connect({
        queues: (queues) => void heard.push(`queues ${queues.join()}`),
        config: () => void heard.push('config'),
      })
      one.enableQueue(0, 2, { desc: 0, avail: 0x100, used: 0x200 }, true)
      one.interrupt(0)
      same(heard, ['queues 0', 'config'], 'what one interrupt of one vector makes the driver look at')
    },
  },
  ...['R94', 'R95', 'R96'].map((id) => ({ id, na: 'our driver is on PCI; there is no MMIO transport' })),
  {
    id: 'R102',
    run(test) {
      const { accesses, driver } = test.started((fake) => (fake.maxPorts = 3))
      same(driver.maxPorts, 3, 'ports')
      const reads = accesses.filter(
        ({ kind, offset }) => kind === 'read' && offset >= DEVICE_CONFIG && offset < DEVICE_CONFIG + 12,
      )
      same(
        [...new Set(reads.map(({ offset, len }) => `${len} at ${offset - DEVICE_CONFIG}`))],
        ['4 at 4'],
        'reads of the configuration',
      )
    },
  },
]
