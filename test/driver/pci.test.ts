/** Finding a device behind PCI, among capabilities that are new, broken or lies. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PeerFault, VmchannelError } from '../../src/errors.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import { findMsix, findStructures } from '../../src/driver/capabilities.ts'
import { PciRegisters, type PciAccess } from '../../src/driver/pci-registers.ts'
import { PciTransport } from '../../src/driver/pci.ts'
import { resetDevice, startDevice, type DriverStart, type Transport } from '../../src/driver/transport.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'

/** Our own function with a configuration space that a test may change: reads come from a copy. */
function machine(change: (space: Uint8Array) => void = () => {}): {
  access: PciAccess
  space: Uint8Array
  accesses: [string, number, number, number][]
} {
  const fn = new VirtioPci(new ConsoleDevice({ maxPorts: 4 }), new GuestMemory(), { vectors: 11 })
  const space = new Uint8Array(256)
  fn.readConfig(0, space)
  change(space)
  const accesses: [string, number, number, number][] = []
  return {
    space,
    accesses,
    access: {
      barSizes: fn.barSizes,
      readConfig: (offset, out) => {
        out.fill(0)
        out.set(space.subarray(offset, offset + out.length))
      },
      writeConfig: (offset, data) => {
        accesses.push(['config', -1, offset, data.length])
        fn.writeConfig(offset, data)
      },
      readBar: (bar, offset, out) => {
        accesses.push(['read', bar, offset, out.length])
        fn.readBar(bar, offset, out)
      },
      writeBar: (bar, offset, data) => {
        accesses.push(['write', bar, offset, data.length])
        fn.writeBar(bar, offset, data)
      },
    },
  }
}
const find = (change?: (space: Uint8Array) => void) => {
  const { access } = machine(change)
  return findStructures(new PciRegisters(access), access.barSizes)
}
/** Puts a capability at 0xc0 before all others. */
function first(space: Uint8Array, bytes: number[]): void {
  space.set(bytes, 0xc0)
  space[0xc1] = space[0x34]!
  space[0x34] = 0xc0
}

function start(transport: Transport, how: DriverStart): void {
  for (const steps = startDevice(transport, how); !steps.next().done;);
}

describe('capabilities', () => {
  it('ours are found', () => {
    expect(find()).toEqual({
      common: { bar: 4, offset: 0, len: 0x3c },
      notify: { bar: 4, offset: 0x3000, len: 40, multiplier: 4 },
      isr: { bar: 4, offset: 0x1000, len: 1 },
      device: { bar: 4, offset: 0x2000, len: 12 },
    })
    const { access } = machine()
    expect(findMsix(new PciRegisters(access))).toEqual({ at: 0x98, vectors: 11 })
  })

  it('the first usable one counts', () => {
    const expected = find().common
    const put = (bytes: number[]) => find((space) => first(space, bytes)).common
    // cfg_type 1 at 0x100 in BAR 4: usable, and before ours.
    expect(put([9, 0, 16, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0x3c, 0, 0, 0])).toEqual({ bar: 4, offset: 0x100, len: 0x3c })
    // Reserved BAR, BAR that is not there, past its end, odd offset, too short, capability too short, other vendor's.
    for (const bytes of [
      [9, 0, 16, 1, 6, 0, 0, 0, 0, 1, 0, 0, 0x3c, 0, 0, 0],
      [9, 0, 16, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0x3c, 0, 0, 0],
      [9, 0, 16, 1, 4, 0, 0, 0, 0, 0, 1, 0, 0x3c, 0, 0, 0],
      [9, 0, 16, 1, 4, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff, 0x3c, 0, 0, 0],
      [9, 0, 16, 1, 4, 0, 0, 0, 0x02, 1, 0, 0, 0x3c, 0, 0, 0],
      [9, 0, 16, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0x37, 0, 0, 0],
      [9, 0, 15, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0x3c, 0, 0, 0],
      [9, 0, 16, 0, 4, 0, 0, 0, 0, 1, 0, 0, 0x3c, 0, 0, 0],
      [9, 0, 16, 9, 4, 0, 0, 0, 0, 1, 0, 0, 0x3c, 0, 0, 0],
      [1, 0, 16, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0x3c, 0, 0, 0],
    ])
      expect(put(bytes)).toEqual(expected)
  })

  it('a longer capability and a longer structure than known are accepted', () => {
    const put = (bytes: number[]) => find((space) => first(space, bytes)).common
    expect(put([9, 0, 64, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0xff, 0, 0, 0])).toEqual({ bar: 4, offset: 0x100, len: 0xff })
  })

  it('without one that every device has, it is no device', () => {
    for (const at of [0x40, 0x50, 0x64]) expect(() => find((space) => void (space[at + 3] = 0))).toThrow(PeerFault)
    expect(find((space) => void (space[0x74 + 3] = 0)).device).toBeUndefined()
    expect(() => find((space) => void (space[6] = 0))).toThrow(PeerFault)
  })

  it('any configuration space whatever ends in structures inside their BARs, or in a PeerFault', () => {
    const { space, access } = machine()
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0x34, max: 255 }), fc.nat(255)), { maxLength: 30 }),
        (changes) => {
          const before = space.slice()
          for (const [at, byte] of changes) space[at] = byte
          try {
            const { common, notify, isr, device } = findStructures(new PciRegisters(access), access.barSizes)
            for (const { bar, offset, len } of [common, notify, isr, ...(device ? [device] : [])])
              expect(offset + len).toBeLessThanOrEqual(access.barSizes[bar]!)
          } catch (error) {
            expect(error).toBeInstanceOf(PeerFault)
          } finally {
            space.set(before)
          }
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('identity', () => {
  const open = (vendor: number, device: number, revision = 1) => {
    const { access } = machine((space) => {
      const view = new DataView(space.buffer)
      view.setUint16(0, vendor, true)
      view.setUint16(2, device, true)
      space[8] = revision
    })
    return new PciTransport(access, { vectors: 0 }).deviceId
  }
  it('any revision, modern and transitional; what is not virtio says what it is', () => {
    expect([open(0x1af4, 0x1043), open(0x1af4, 0x1043, 0), open(0x1af4, 0x1043, 99), open(0x1af4, 0x1003, 0)]).toEqual([
      3, 3, 3, 3,
    ])
    expect(open(0x1af4, 0x1041)).toBe(1)
    for (const [vendor, device] of [
      [0x8086, 0x1043],
      [0x1af4, 0x1040],
      [0x1af4, 0x1080],
      [0xffff, 0xffff],
    ] as const)
      expect(() => open(vendor, device)).toThrow(VmchannelError)
    expect(() => open(0x8086, 0x1043)).toThrow(/8086:1043/)
  })
})

describe('registers', () => {
  it('are accessed in their natural width, aligned, inside the structures (§4.1.3.1)', () => {
    const { access, accesses } = machine()
    const transport = new PciTransport(access, { vectors: 3 })
    accesses.length = 0
    const rings = { desc: 0x1000, avail: 0x2000, used: 0x3000 }
    start(transport, {
      choose: () => 3n,
      setUp() {
        transport.connect({ queues() {}, config() {} })
        transport.readConfig(4, new Uint8Array(4))
        expect(() => transport.enableQueue(0, transport.queueSizeMax(0), rings, true)).toThrow(PeerFault)
        return []
      },
    })
    transport.notify(0)
    const widths: Record<number, number> = {
      0x10: 2,
      0x12: 2,
      0x14: 1,
      0x15: 1,
      0x16: 2,
      0x18: 2,
      0x1a: 2,
      0x1c: 2,
      0x1e: 2,
    }
    for (const [kind, bar, offset, len] of accesses) {
      expect(offset % len, `${kind} ${offset}`).toBe(0)
      expect(bar).toBe(4)
      if (offset < 0x3c) expect(len, `${kind} ${offset}`).toBe(widths[offset] ?? 4)
    }
    // The capabilities are not written, and no read-only register.
    const readOnly = [4, 0x12, 0x15, 0x1e]
    expect(accesses.filter(([kind, , offset]) => kind === 'write' && readOnly.includes(offset))).toEqual([])
  })

  it('queues share vectors in turn, and one vector stands for everything where there is no other', () => {
    for (const [vectors, expected] of [
      [4, [0, 1, 2, 3, 1, 2]],
      [2, [0, 1, 1, 1, 1, 1]],
      [1, [0, 0, 0, 0, 0, 0]],
    ] as const) {
      const memory = new GuestMemory()
      const fn = new VirtioPci(new ConsoleDevice({ maxPorts: 4 }), memory, { vectors: 11 })
      memory.add({ base: 0, size: 0x10000, bytes: new Uint8Array(0x10000), address: 0, writable: true })
      const transport = new PciTransport(fn, { vectors })
      const heard: string[] = []
      transport.writeStatus(3)
      transport.writeDriverFeatures(1n << 32n)
      transport.writeStatus(11)
      transport.connect({ queues: (queues) => void heard.push(queues.join()), config: () => void heard.push('config') })
      for (let queue = 0; queue < 5; queue++)
        transport.enableQueue(queue, 2, { desc: 0, avail: 0x100, used: 0x200 }, true)
      const common = transport.structures.common
      const registers = new PciRegisters(fn)
      const mapped = [registers.bar16(4, common.offset + 0x10)]
      for (let queue = 0; queue < 5; queue++) {
        registers.setBar16(4, common.offset + 0x16, queue)
        mapped.push(registers.bar16(4, common.offset + 0x1a))
      }
      expect(mapped).toEqual(expected)
      transport.interrupt(0)
      transport.interrupt(1)
      transport.interrupt(77)
      expect(heard).toEqual(
        vectors === 1 ? ['0,1,2,3,4', 'config'] : vectors === 2 ? ['config', '0,1,2,3,4'] : ['config', '0,3'],
      )
    }
  })

  it('a vector that the device does not map is an error with a way out', () => {
    const { access } = machine()
    const transport = new PciTransport(
      { ...access, readBar: (_bar, _offset, out) => void out.fill(0xff) },
      { vectors: 2 },
    )
    expect(() => transport.connect({ queues() {}, config() {} })).toThrow(VmchannelError)
  })

  it('a notify address past its structure is not written to', () => {
    const { access } = machine((space) => new DataView(space.buffer).setUint32(0x50 + 16, 0x1000, true))
    const transport = new PciTransport(access, { vectors: 0 })
    expect(() => transport.enableQueue(5, 2, { desc: 0, avail: 0, used: 0 }, false)).toThrow(/notified at/)
  })

  it('configuration that changes while it is read is read again, and given up when it never stops', () => {
    let generation = 0
    let reads = 0
    const { access } = machine()
    const restless = (until: number): PciAccess => ({
      ...access,
      readBar(bar, offset, out) {
        if (offset === 0x15) out[0] = generation & 0xff
        else {
          if (reads++ < until) generation++
          access.readBar(bar, offset, out)
        }
      },
    })
    const out = new Uint8Array(4)
    new PciTransport(restless(3), { vectors: 0 }).readConfig(4, out)
    expect([...out]).toEqual([4, 0, 0, 0])
    expect(reads).toBe(4)
    expect(() => new PciTransport(restless(Infinity), { vectors: 0 }).readConfig(4, out)).toThrow(PeerFault)
    expect(() => new PciTransport(access, { vectors: 0 }).readConfig(8, new Uint8Array(8))).toThrow(PeerFault)
  })
})

describe('§3.1.1', () => {
  /** A transport that writes down what is done to it. */
  function recorder(options: { features?: bigint; keeps?: number; resetReads?: number } = {}) {
    const trace: string[] = []
    let status = 0x0f
    let resets = options.resetReads ?? 2
    const transport = {
      readStatus() {
        trace.push('read')
        if (status === 0 && resets-- > 0) return 4
        return status
      },
      writeStatus(value: number) {
        trace.push(`status ${value}`)
        status = value & (options.keeps ?? 0xff)
      },
      readDeviceFeatures() {
        trace.push('features')
        return options.features ?? (1n << 32n) | 7n
      },
      writeDriverFeatures: (features: bigint) => void trace.push(`accept ${features}`),
    } as unknown as Transport
    return { trace, transport, steps: () => trace.filter((text) => text !== 'read') }
  }

  it('each step in its order, the reset waited for, FEATURES_OK read back', () => {
    const { transport, steps, trace } = recorder()
    start(transport, {
      choose: () => 0xffn,
      *setUp() {
        trace.push('set up')
        yield
      },
    })
    expect(steps()).toEqual([
      'status 0',
      'status 1',
      'status 3',
      'features',
      `accept ${(1n << 32n) | 7n}`,
      'status 11',
      'set up',
      'status 15',
    ])
    expect(trace.slice(0, 4)).toEqual(['status 0', 'read', 'read', 'read'])
    expect(trace[trace.indexOf('status 11') + 1]).toBe('read')
  })

  it('a failure anywhere ends in FAILED, never in DRIVER_OK', () => {
    for (const [options, setUp] of [
      [{ keeps: ~8 }, () => []],
      [{ features: 7n }, () => []],
      [
        {},
        () => {
          throw new PeerFault('no such queue')
        },
      ],
    ] as const) {
      const { transport, steps } = recorder(options)
      expect(() => start(transport, { choose: () => 0n, setUp })).toThrow()
      expect(Number(steps().at(-1)!.split(' ')[1]) & 0x84).toBe(0x80)
    }
  })

  it('a reset that never ends is given up', () => {
    const { transport } = recorder({ resetReads: Infinity })
    expect(() => resetDevice(transport)).toThrow(PeerFault)
  })
})
