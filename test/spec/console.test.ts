import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  CONSOLE_PORTS_MAX,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  decodeControl,
  decodeSize,
  encodeControl,
  encodeSize,
  portOfQueue,
  queuesFor,
  receiveqOf,
  transmitqOf,
} from '../../src/spec/console.ts'
import * as features from '../../src/spec/features.ts'

describe('the console device in numbers', () => {
  it('port↔queue mapping round-trips; 2 and 3 are control', () => {
    const seen = new Set<number>()
    for (let port = 0; port < CONSOLE_PORTS_MAX; port++) {
      expect(portOfQueue(receiveqOf(port))).toBe(port)
      expect(portOfQueue(transmitqOf(port))).toBe(port)
      expect(receiveqOf(port) % 2).toBe(0)
      seen.add(receiveqOf(port)).add(transmitqOf(port))
      expect(queuesFor(port + 1)).toBe(Math.max(4, transmitqOf(port) + 1))
    }
    expect(seen.size).toBe(2 * CONSOLE_PORTS_MAX)
    expect(seen.has(CONTROL_RECEIVEQ) || seen.has(CONTROL_TRANSMITQ)).toBe(false)
    expect([portOfQueue(2), portOfQueue(3)]).toEqual([undefined, undefined])
    // The table of §5.3.2.
    expect([0, 1, 2].map((port) => [receiveqOf(port), transmitqOf(port)])).toEqual([
      [0, 1],
      [4, 5],
      [6, 7],
    ])
    expect(queuesFor(CONSOLE_PORTS_MAX)).toBe(1024)
  })

  it('offered bits are 1<<n, not n', () => {
    const bits: Record<string, bigint> = {
      VIRTIO_CONSOLE_F_SIZE: 0n,
      VIRTIO_CONSOLE_F_MULTIPORT: 1n,
      VIRTIO_CONSOLE_F_EMERG_WRITE: 2n,
      VIRTIO_F_NOTIFY_ON_EMPTY: 24n,
      VIRTIO_F_ANY_LAYOUT: 27n,
      VIRTIO_RING_F_INDIRECT_DESC: 28n,
      VIRTIO_RING_F_EVENT_IDX: 29n,
      VIRTIO_F_VERSION_1: 32n,
      VIRTIO_F_ACCESS_PLATFORM: 33n,
      VIRTIO_F_RING_PACKED: 34n,
      VIRTIO_F_IN_ORDER: 35n,
      VIRTIO_F_ORDER_PLATFORM: 36n,
      VIRTIO_F_NOTIFICATION_DATA: 38n,
      VIRTIO_F_RING_RESET: 40n,
    }
    for (const [name, value] of Object.entries(features)) {
      if (typeof value !== 'bigint') continue
      expect(value, name).toBe(1n << bits[name]!)
    }
    expect(features.featureNames((1n << 40n) | (1n << 63n) | 2n)).toEqual(['MULTIPORT', 'RING_RESET', 'bit 63'])
  })

  it('control messages: what is encoded is decoded, from any place in memory; less than eight bytes is none', () => {
    const u = (bits: number) => fc.nat(2 ** bits - 1)
    fc.assert(
      fc.property(
        u(32),
        u(16),
        u(16),
        fc.uint8Array({ maxLength: 40 }),
        fc.nat(15),
        (id, event, value, tail, shift) => {
          const bytes = encodeControl(id, event, value, tail)
          const moved = new Uint8Array(shift + bytes.length + 3)
          moved.set(bytes, shift)
          expect(decodeControl(moved.subarray(shift, shift + bytes.length))).toEqual({ id, event, value })
          expect(bytes.subarray(8)).toEqual(tail)
          expect(decodeControl(bytes.subarray(0, 7))).toBeUndefined()
        },
      ),
    )
    expect([...encodeControl(0x01020304, 0x0506, 0x0708)]).toEqual([4, 3, 2, 1, 6, 5, 8, 7])
  })

  it('sizes in both orders', () => {
    for (const order of ['cols-rows', 'rows-cols'] as const)
      expect(decodeSize(encodeSize(80, 25, order), order)).toEqual({ cols: 80, rows: 25 })
    expect(decodeSize(encodeSize(80, 25, 'rows-cols'), 'cols-rows')).toEqual({ cols: 25, rows: 80 })
    expect(decodeSize(new Uint8Array(3), 'cols-rows')).toBeUndefined()
  })
})
