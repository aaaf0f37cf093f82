import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PeerFault, VmchannelError } from '../../src/errors.ts'
import { DmaPool, roundUp, type DmaBuffer } from '../../src/mem/dma-pool.ts'
import { GuestMemory, type Region } from '../../src/mem/guest-memory.ts'
import { Iovec, IOVEC_MAX } from '../../src/mem/iovec.ts'

const region = (base: number, size: number, options: Partial<Region> = {}): Region => ({
  ...{ base, size, bytes: new Uint8Array(size), address: 0, writable: true },
  ...options,
})

describe('GuestMemory', () => {
  it('refuses what cannot be: empty, overlapping, past 2^53, fewer bytes than said, oddly placed', () => {
    const memory = new GuestMemory()
    memory.add(region(0x1000, 0x1000))
    for (const bad of [
      region(0x1000, 0),
      region(0x1000, 0x1000),
      region(0x1ff0, 0x20),
      region(0, 0x1001, { bytes: new Uint8Array(0x1010) }),
      region(2 ** 53 - 0x100, 0x1000),
      region(0x4000, 0x1000, { bytes: new Uint8Array(0x800) }),
      region(0x4008, 0x1000),
      region(NaN, 0x1000),
    ])
      expect(() => memory.add(bad), `${bad.base} ${bad.size}`).toThrow(PeerFault)
    memory.add(region(0x2000, 0x1000))
    memory.add(region(0, 0x1000))
    expect(memory.regions.map(({ base }) => base)).toEqual([0, 0x1000, 0x2000])
  })

  it('remove takes whole regions only', () => {
    const memory = new GuestMemory()
    for (const base of [0x1000, 0x2000, 0x3000]) memory.add(region(base, 0x1000))
    expect(() => memory.remove(0x1800, 0x1000)).toThrow(PeerFault)
    expect(() => memory.remove(0x1000, 0x1800)).toThrow(PeerFault)
    expect(memory.remove(0x8000, 0x1000)).toBe(0)
    expect(memory.remove(0x2000, 0x2000)).toBe(2)
    expect(memory.region(0x2000)).toBeUndefined()
    expect(memory.region(0x1fff)?.base).toBe(0x1000)
  })

  it('tells of each change, once, until it is asked not to', () => {
    const memory = new GuestMemory()
    let calls = 0
    const stop = memory.onChange(() => calls++)
    memory.add(region(0, 16))
    memory.remove(0, 16)
    memory.remove(0, 16)
    memory.clear()
    expect(calls).toBe(2)
    stop()
    memory.add(region(0, 16))
    expect(calls).toBe(2)
  })

  it('append agrees with a byte by byte look, whatever lies where', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(15), { minLength: 1 }),
        fc.nat(255),
        fc.integer({ min: 1, max: 100 }),
        fc.boolean(),
        fc.nat(15),
        (pages, address, len, writable, readOnly) => {
          const memory = new GuestMemory()
          // Sixteen pages of 16 bytes, some there, one of them read-only; the byte at n is n.
          for (const page of pages)
            memory.add(
              region(page * 16, 16, {
                bytes: Uint8Array.from({ length: 16 }, (_, i) => page * 16 + i),
                writable: page !== readOnly,
              }),
            )
          const list = new Iovec()
          const there = (n: number): boolean => pages.includes(n >> 4) && (!writable || n >> 4 !== readOnly)
          const wanted = Array.from({ length: len }, (_, i) => address + i)
          if (wanted.every(there)) {
            expect(memory.append(list, address, len, writable)).toBe(len)
            const out = new Uint8Array(len)
            expect(list.copyTo(out)).toBe(len)
            expect([...out]).toEqual(wanted)
          } else expect(() => memory.append(list, address, len, writable)).toThrow(PeerFault)
        },
      ),
    )
  })

  it('a structure may reach into the next window of the same file, a region lookup may not', () => {
    const file = new Uint8Array(64)
    const memory = new GuestMemory()
    memory.add(region(0x100, 32, { bytes: file }))
    expect(memory.contiguous(0x110, 32, false).bytes).toBe(file)
    expect(() => memory.contiguous(0x110, 49, false)).toThrow(PeerFault)
    expect(memory.region(0x120)).toBeUndefined()
  })
})

describe('Iovec', () => {
  it('copies in and out over any cuts', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { maxLength: 20 }), fc.uint8Array({ maxLength: 100 }), (lens, data) => {
        const list = new Iovec()
        const memory = new Uint8Array(400)
        let at = 0
        for (const len of lens) {
          list.push(memory, at + 3, len, 0)
          at += len + 5
        }
        const total = lens.reduce((a, b) => a + b, 0)
        const copied = list.copyFrom(data)
        expect(copied).toBe(Math.min(total, data.length))
        const out = new Uint8Array(data.length)
        list.copyTo(out)
        expect(out.subarray(0, copied)).toEqual(data.subarray(0, copied))
        // Nothing outside the segments was written.
        expect(memory.reduce((n, byte) => n + (byte ? 1 : 0), 0)).toBe(data.subarray(0, copied).filter(Boolean).length)
      }),
    )
  })

  it('is full at what one system call takes', () => {
    const list = new Iovec()
    while (!list.full) list.push(new Uint8Array(1), 0, 1, 0)
    expect([list.count, list.total]).toEqual([IOVEC_MAX, IOVEC_MAX])
    list.clear()
    expect([list.count, list.total, list.full]).toEqual([0, 0, false])
  })
})

describe('DmaPool', () => {
  const pool = (limit?: number): DmaPool => {
    let next = 2 ** 32
    return new DmaPool(
      (len) => {
        const made = region(next, len)
        next += len + 4096
        return made
      },
      limit === undefined ? {} : { limit },
    )
  }

  it('round-up keeps exact multiples', () => {
    expect([0, 1, 4095, 4096, 4097, 8192].map((n) => roundUp(n, 4096))).toEqual([0, 4096, 4096, 4096, 8192, 8192])
    const exact = pool()
    for (let i = 0; i < 64; i++) exact.allocate(4096)
    expect(exact.total).toBe(64 * 4096)
  })

  it('buffers never overlap, are zero, aligned, inside its memory, and the same bytes at both addresses', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 1, max: 20_000 })), { maxLength: 60 }), (steps) => {
        const dma = pool()
        const live: DmaBuffer[] = []
        for (const [give, len] of steps) {
          if (give && live.length > 0) {
            const buffer = live.splice(len % live.length, 1)[0]!
            buffer.bytes.fill(0xee)
            dma.free(buffer)
            continue
          }
          const buffer = dma.allocate(len)
          expect(buffer.bytes.length).toBe(len)
          expect(buffer.bytes.every((byte) => byte === 0)).toBe(true)
          expect(buffer.address % Math.min(4096, 2 ** Math.ceil(Math.log2(Math.max(64, len))))).toBe(0)
          const home = dma.memory.contiguous(buffer.address, len, true)
          buffer.bytes[0] = 0x55
          expect(home.bytes[buffer.address - home.base]).toBe(0x55)
          live.push(buffer)
        }
        const sorted = live.toSorted((a, b) => a.address - b.address)
        for (const [i, { address, bytes }] of sorted.entries())
          expect(address + bytes.length).toBeLessThanOrEqual(sorted[i + 1]?.address ?? Infinity)
      }),
    )
  })

  it('gives freed buffers out again, and says so when its limit is reached', () => {
    const dma = pool(1 << 20)
    for (let i = 0; i < 1000; i++) dma.free(dma.allocate(100_000))
    expect(dma.total).toBeLessThanOrEqual(512 << 10)
    const take = (): void => {
      for (;;) dma.allocate(4096)
    }
    expect(take).toThrow(VmchannelError)
    expect(dma.total).toBeLessThanOrEqual(1 << 20)
  })
})
