/** Descriptor chains as a driver should make them, and as it should not. */

import { describe, expect, it } from 'vitest'
import { PeerFault } from '../../src/errors.ts'
import { IOVEC_MAX, Iovec } from '../../src/mem/iovec.ts'
import { walkChain } from '../../src/ring/chain.ts'
import { SplitRing } from '../../src/ring/split-ring.ts'
import { BASE, Bench, DATA } from './tools.ts'

const NEXT = 1
const WRITE = 2
const INDIRECT = 4
const TABLE = BASE + 0xc0000

const list = new Iovec()
function walk(bench: Bench, head = 0, options: { write?: boolean; indirect?: boolean; skip?: number } = {}): number {
  list.clear()
  const direction = options.write ? 'writable' : 'readable'
  return walkChain(bench.ring, bench.memory, head, direction, options.indirect ?? true, list, options.skip ?? 0)
}
const segments = (): [number, number][] => Array.from({ length: list.count }, (_, i) => [list.offset[i]!, list.len[i]!])

describe('good chains', () => {
  it('takes the wanted part, in order, without empty descriptors', () => {
    const bench = new Bench()
    bench.desc(3, DATA, 10, NEXT, 1)
    bench.desc(1, DATA + 100, 0, NEXT, 7)
    bench.desc(7, DATA + 200, 20, NEXT, 0)
    bench.desc(0, DATA + 300, 30, WRITE | NEXT, 2)
    bench.desc(2, DATA + 400, 40, WRITE)
    expect(walk(bench, 3)).toBe(30)
    expect(segments()).toEqual([
      [0, 10],
      [200, 20],
    ])
    expect(walk(bench, 3, { write: true })).toBe(70)
    expect(segments()).toEqual([
      [300, 30],
      [400, 40],
    ])
  })

  it('skips what was moved before, over any cuts', () => {
    const bench = new Bench()
    for (let i = 0; i < 4; i++) bench.desc(i, DATA + 100 * i, 10, i < 3 ? NEXT : 0, i + 1)
    for (let skip = 0; skip <= 40; skip++) {
      expect(walk(bench, 0, { skip })).toBe(40)
      expect(list.total).toBe(40 - skip)
      if (skip < 40) expect(segments()[0]).toEqual([100 * Math.floor(skip / 10) + (skip % 10), 10 - (skip % 10)])
    }
  })

  it('exactly as many descriptors as the queue has', () => {
    for (const size of [1, 2, 8, 1024, 32768]) {
      const bench = new Bench(size)
      for (let i = 0; i < size; i++) bench.desc(i, DATA + i, 1, i < size - 1 ? NEXT : 0, i + 1)
      expect(walk(bench)).toBe(size)
      expect(list.count).toBe(Math.min(size, IOVEC_MAX))
    }
  })

  it('direct descriptors, then an indirect table; WRITE on the descriptor that names it is ignored', () => {
    const bench = new Bench()
    bench.desc(0, DATA, 1, NEXT, 1)
    bench.desc(1, TABLE, 3 * 16, INDIRECT | WRITE)
    bench.desc(0, DATA + 10, 2, NEXT, 2, TABLE)
    bench.desc(2, DATA + 20, 4, NEXT, 1, TABLE)
    bench.desc(1, DATA + 30, 8, WRITE, 0, TABLE)
    expect(walk(bench)).toBe(7)
    expect(segments()).toEqual([
      [0, 1],
      [10, 2],
      [20, 4],
    ])
    expect(walk(bench, 0, { write: true })).toBe(8)
  })

  it('an indirect table longer than the queue, as Linux makes of a whole pipe, and one at an odd address', () => {
    const bench = new Bench(4)
    for (let i = 0; i < 600; i++) bench.desc(i, DATA + i, 1, i < 599 ? NEXT : 0, i + 1, TABLE)
    bench.desc(0, TABLE, 600 * 16, INDIRECT)
    expect(walk(bench)).toBe(600)
    const bytes = bench.region.bytes
    bytes.copyWithin(0xd0003, 0xc0000, 0xc0000 + 600 * 16)
    bench.desc(0, BASE + 0xd0003, 600 * 16, INDIRECT)
    expect(walk(bench)).toBe(600)
  })
})

describe('bad chains are a PeerFault, and found in bounded time', () => {
  const bad: Record<string, (bench: Bench) => { head?: number; indirect?: boolean; write?: boolean } | void> = {
    'a descriptor that is its own next': (b) => b.desc(0, DATA, 1, NEXT, 0),
    'a looped chain ends after size steps and faults the device': (b) => {
      for (let i = 0; i < 8; i++) b.desc(i, DATA, 1, NEXT, (i + 1) % 8)
    },
    'a loop of descriptors without bytes (CVE-2016-6490)': (b) => {
      b.desc(0, DATA, 0, NEXT, 1)
      b.desc(1, DATA, 0, NEXT, 0)
    },
    'a loop inside an indirect table': (b) => {
      b.desc(0, TABLE, 32, INDIRECT)
      b.desc(0, DATA, 1, NEXT, 1, TABLE)
      b.desc(1, DATA, 1, NEXT, 0, TABLE)
    },
    'head = size': () => ({ head: 8 }),
    'head = 65535': () => ({ head: 65535 }),
    'next = size': (b) => b.desc(0, DATA, 1, NEXT, 8),
    'next past the indirect table': (b) => {
      b.desc(0, TABLE, 32, INDIRECT)
      b.desc(0, DATA, 1, NEXT, 2, TABLE)
    },
    'an indirect table in an indirect table': (b) => {
      b.desc(0, TABLE, 32, INDIRECT)
      b.desc(0, TABLE + 64, 16, INDIRECT, 0, TABLE)
    },
    'INDIRECT with NEXT': (b) => {
      b.desc(0, TABLE, 16, INDIRECT | NEXT, 1)
      b.desc(1, DATA, 1)
    },
    'INDIRECT that was not negotiated': (b) => {
      b.desc(0, TABLE, 16, INDIRECT)
      return { indirect: false }
    },
    'an indirect table of 0 bytes': (b) => b.desc(0, TABLE, 0, INDIRECT),
    'an indirect table of 17 bytes': (b) => b.desc(0, TABLE, 17, INDIRECT),
    'an indirect table outside memory': (b) => b.desc(0, 0x1000, 16, INDIRECT),
    'an indirect table that ends outside memory': (b) => b.desc(0, DATA + 0x100000 - 16, 32, INDIRECT),
    'a loop in an indirect table that says it has 4 GiB': (b) => {
      b.desc(0, TABLE, 0xfffffff0, INDIRECT)
      b.desc(0, DATA, 1, NEXT, 0, TABLE)
    },
    'readable after writable': (b) => {
      b.desc(0, DATA, 1, WRITE | NEXT, 1)
      b.desc(1, DATA, 1)
    },
    'more than 2^32 bytes in all': (b) => {
      b.desc(0, DATA, 0, NEXT, 1)
      for (let i = 0; i < 8; i++) b.desc(i, DATA, 0x30000000, i < 7 ? NEXT : 0, i + 1)
      return { write: true }
    },
    'a hole in memory': (b) => b.desc(0, DATA + 0x100000, 1),
    'an end outside memory': (b) => b.desc(0, DATA + 0x100000 - 1, 2),
    'address 0': (b) => b.desc(0, 0, 1),
    'address and length wrap at 2^64': (b) => b.desc(0, 2 ** 64 - 2 ** 11, 4096),
    'an address past 2^53': (b) => b.desc(0, 2 ** 60, 16),
    'writable memory that is read-only': (b) => {
      b.memory.add({ base: 0x1000, size: 0x1000, bytes: new Uint8Array(0x1000), address: 0, writable: false })
      b.desc(0, 0x1000, 1, WRITE)
      return { write: true }
    },
  }
  for (const [name, make] of Object.entries(bad))
    it(name, () => {
      const bench = new Bench()
      const { head, ...options } = make(bench) ?? {}
      expect(() => walk(bench, head, options)).toThrow(PeerFault)
      expect(list.count).toBeLessThanOrEqual(IOVEC_MAX)
    })

  it('32768 descriptors of one byte: the list takes a beginning, nothing breaks', () => {
    const bench = new Bench(32768)
    for (let i = 0; i < 32768; i++) bench.desc(i, DATA, 1, i < 32767 ? NEXT : 0, i + 1)
    expect(walk(bench)).toBe(32768)
    expect(walk(bench, 0, { skip: 32000 })).toBe(32768)
    expect(list.total).toBe(768)
  })

  it('a chain over its own rings is memory like any other', () => {
    const bench = new Bench()
    bench.desc(0, BASE, 0x100000, WRITE)
    expect(walk(bench, 0, { write: true })).toBe(0x100000)
  })
})

describe('rings', () => {
  for (const [name, size, at] of [
    ['size 0', 0, {}],
    ['size 3', 3, {}],
    ['size 65536', 65536, {}],
    ['size NaN', NaN, {}],
    ['descriptor table at 8', 8, { desc: BASE + 8 }],
    ['available ring at 1', 8, { avail: BASE + 1 }],
    ['used ring at 2', 8, { used: BASE + 2 }],
    ['descriptor table outside', 8, { desc: 0 }],
    ['available ring over the end', 8, { avail: DATA + 0x100000 - 2 }],
    ['used ring over the end', 8, { used: DATA + 0x100000 - 4 }],
  ] as const)
    it(`refused: ${name}`, () => {
      const bench = new Bench()
      expect(() => new SplitRing(bench.memory, size, { ...bench.at, ...at })).toThrow(PeerFault)
    })

  it('a used ring in read-only memory is refused, the other two are fine there', () => {
    const bench = new Bench()
    bench.memory.add({ base: 0x10000, size: 0x10000, bytes: new Uint8Array(0x10000), address: 0, writable: false })
    expect(() => new SplitRing(bench.memory, 8, { ...bench.at, used: 0x10000 })).toThrow(PeerFault)
    expect(new SplitRing(bench.memory, 8, { ...bench.at, desc: 0x10000, avail: 0x11000 }).size).toBe(8)
  })
})
