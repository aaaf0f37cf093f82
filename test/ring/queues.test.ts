/** Both ends of a queue on one ring: what goes in comes out, whatever the order of things. */

import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { PeerFault } from '../../src/errors.ts'
import { Batch } from '../../src/ring/batch.ts'
import { NO_HEAD, type Segment, type Used } from '../../src/ring/driver-queue.ts'
import { SplitRing } from '../../src/ring/split-ring.ts'
import { Bench, DATA } from './tools.ts'

afterEach(() => vi.restoreAllMocks())

describe('the two ends', () => {
  it('any sequence of adds, publishes, partial moves, completions and takes conserves bytes, order and descriptors', () => {
    const step = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({
          op: fc.constant('add' as const),
          lens: fc.array(fc.nat(40), { minLength: 1, maxLength: 6 }),
          one: fc.boolean(),
        }),
      },
      { weight: 2, arbitrary: fc.record({ op: fc.constant('publish' as const) }) },
      {
        weight: 4,
        arbitrary: fc.record({
          op: fc.constant('move' as const),
          bytes: fc.nat(90),
          limit: fc.integer({ min: 1, max: 100 }),
          chains: fc.integer({ min: 1, max: 5 }),
        }),
      },
      { weight: 2, arbitrary: fc.record({ op: fc.constant('flush' as const) }) },
      { weight: 3, arbitrary: fc.record({ op: fc.constant('take' as const), most: fc.nat(6) }) },
    )
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 10, maxLength: 300 }),
        fc.constantFrom(1, 2, 4, 8, 16),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom('readable' as const, 'writable' as const),
        (steps, size, eventIdx, indirect, direction) => {
          const bench = new Bench(size)
          const driver = bench.driver({ eventIdx, tables: indirect ? 4 : 0 })
          const device = bench.device(eventIdx, indirect)
          const batch = new Batch()
          const used: Used = { head: 0, len: 0 }
          // The model: lengths of the chains in flight in order, and how much of the first was moved.
          const chains: { head: number; len: number; staged: boolean }[] = []
          const done: { head: number; len: number }[] = []
          let partial = 0
          let unflushed = 0
          let next = 0
          for (const s of steps) {
            if (s.op === 'add') {
              const list: Segment[] = s.lens.map((len) => ({ address: DATA + (next += 64), len }))
              const needed = indirect && list.length > 1 && list.length <= 4 ? 1 : list.length
              const free = driver.free
              const writable = direction === 'writable'
              const one = s.one && list.length === 1
              const head = one
                ? driver.addOne(list[0]!.address, list[0]!.len, writable)
                : driver.add(writable ? [] : list, writable ? list : [])
              expect(head === NO_HEAD).toBe(needed > free)
              if (head === NO_HEAD) continue
              expect(driver.free).toBe(free - needed)
              chains.push({ head, len: s.lens.reduce((a, b) => a + b, 0), staged: true })
            } else if (s.op === 'publish') {
              driver.publish()
              for (const chain of chains) chain.staged = false
            } else if (s.op === 'move') {
              const room = device.gather(batch, direction, s.limit, s.chains)
              const visible = chains.filter((chain) => !chain.staged)
              expect(batch.count).toBeLessThanOrEqual(Math.min(s.chains, visible.length))
              expect(batch.count > 0).toBe(visible.length > 0)
              for (let i = 0; i < batch.count; i++) {
                expect(batch.heads[i]).toBe(visible[i]!.head)
                expect(batch.lens[i]).toBe(visible[i]!.len)
              }
              const all = visible.slice(0, batch.count).reduce((a, { len }) => a + len, 0)
              expect(room).toBe(all - partial)
              const bytes = Math.min(s.bytes, room)
              device.complete(batch, bytes)
              let left = bytes + partial
              partial = 0
              for (let i = 0; i < batch.count; i++) {
                const { head, len } = chains[0]!
                if (direction === 'readable' ? left < len : left === 0 && len > 0) {
                  partial = left
                  break
                }
                chains.shift()
                done.push({ head, len: direction === 'readable' ? 0 : Math.min(left, len) })
                left -= Math.min(left, len)
                unflushed++
              }
              expect(device.partial).toBe(partial > 0)
            } else if (s.op === 'flush') {
              device.flush()
              unflushed = 0
            } else
              for (let i = 0; i < s.most; i++) {
                const expected = done.length > unflushed ? done.shift() : undefined
                expect(driver.takeUsed(used)).toBe(expected !== undefined)
                if (expected) expect(used).toEqual(expected)
              }
            expect(driver.inFlight).toBe(chains.length + done.length)
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  it('200 000 chains, twice around the index and more, in batches of every size', () => {
    const bench = new Bench(16)
    const driver = bench.driver({ eventIdx: true })
    const device = bench.device(true)
    const batch = new Batch()
    const used: Used = { head: 0, len: 0 }
    let added = 0
    let taken = 0
    let notified = 0
    let interrupted = 0
    device.enableNotify()
    driver.enableInterrupts()
    while (taken < 200_000) {
      const burst = 1 + (added % 16)
      for (let i = 0; i < burst && driver.add([{ address: DATA, len: 4 }], []) !== NO_HEAD; i++) added++
      if (driver.publish()) notified++
      do {
        device.disableNotify()
        while (device.gather(batch, 'readable', 1000) > 0) device.complete(batch, batch.list.total)
        if (device.flush()) interrupted++
      } while (device.enableNotify())
      do {
        driver.disableInterrupts()
        while (driver.takeUsed(used)) taken++
      } while (driver.enableInterrupts())
      // Nobody was asleep with work left: every publish notified a device that had armed, and the other way round.
      expect(taken).toBe(added)
    }
    expect(notified).toBe(interrupted)
  })

  it('without EVENT_IDX the flags suppress, and re-arming tells what slipped in', () => {
    const bench = new Bench(8)
    const driver = bench.driver()
    const device = bench.device()
    const batch = new Batch()
    device.disableNotify()
    driver.add([{ address: DATA, len: 4 }], [])
    expect(driver.publish()).toBe(false)
    expect(device.enableNotify()).toBe(true)
    driver.add([{ address: DATA, len: 4 }], [])
    expect(driver.publish()).toBe(true)
    expect(driver.publish()).toBe(false)
    driver.disableInterrupts()
    device.gather(batch, 'readable', 100)
    device.complete(batch, 8)
    expect(device.flush()).toBe(false)
    expect(driver.enableInterrupts()).toBe(true)
    expect(device.flush()).toBe(false)
  })

  it('with EVENT_IDX a device can ask for the nth next chain', () => {
    const bench = new Bench(8)
    const driver = bench.driver({ eventIdx: true })
    const device = bench.device(true)
    expect(device.enableNotify(3)).toBe(false)
    const heard = [1, 2, 3, 4].map(() => {
      driver.add([{ address: DATA, len: 1 }], [])
      return driver.publish()
    })
    expect(heard).toEqual([false, false, true, false])
    expect(device.enableNotify(4)).toBe(true)
  })
})

describe('order of publication', () => {
  it('used idx becomes visible only after its element', () => {
    const bench = new Bench(8)
    const driver = bench.driver()
    const device = bench.device()
    const spies = {
      element: vi.spyOn(SplitRing.prototype, 'setUsed'),
      index: vi.spyOn(SplitRing.prototype, 'publishUsedIdx'),
      suppression: vi.spyOn(SplitRing.prototype, 'availFlags'),
    }
    for (let i = 0; i < 3; i++) driver.add([{ address: DATA, len: 1 }], [])
    driver.publish()
    const batch = new Batch()
    device.gather(batch, 'readable', 100)
    device.complete(batch, 3)
    device.flush()
    // One publication for the whole batch, and only then the look at whether anybody wants to hear of it.
    const trace = Object.entries(spies).flatMap(([name, { mock }]) =>
      mock.calls.map((args, i) => ({
        order: mock.invocationCallOrder[i]!,
        text: [name, ...args.slice(0, 1)].join(' '),
      })),
    )
    const texts = trace.toSorted((x, y) => x.order - y.order).map(({ text }) => text)
    expect(texts).toEqual(['element 0', 'element 1', 'element 2', 'index 3', 'suppression'])
  })

  it('avail idx becomes visible only after its entries', () => {
    const bench = new Bench(8)
    const driver = bench.driver()
    driver.add([{ address: DATA, len: 1 }], [])
    driver.add([{ address: DATA, len: 1 }], [])
    expect(bench.ring.availIdx()).toBe(0)
    expect([bench.ring.availRing(0), bench.ring.availRing(1)]).toEqual([0, 1])
    driver.publish()
    expect(bench.ring.availIdx()).toBe(2)
  })
})

describe('a device that lies to the driver', () => {
  function one(options = {}) {
    const bench = new Bench(8)
    const driver = bench.driver(options)
    driver.add([], [{ address: DATA, len: 10 }])
    driver.add([{ address: DATA, len: 10 }], [])
    driver.publish()
    const used: Used = { head: 0, len: 0 }
    return { bench, driver, used }
  }

  for (const [name, id, len] of [
    ['an id that is not in flight', 5, 0],
    ['an id past the queue', 8, 0],
    ['an id of 2^32 - 1', 0xffffffff, 0],
    ['more bytes than the buffer has', 0, 11],
  ] as const)
    it(`${name} breaks the queue, for good`, () => {
      const { bench, driver, used } = one()
      bench.ring.setUsed(0, id, len)
      bench.ring.publishUsedIdx(1)
      expect(() => driver.takeUsed(used)).toThrow(PeerFault)
      expect(driver.broken).toBe(true)
      expect(driver.takeUsed(used)).toBe(false)
      expect(driver.add([{ address: DATA, len: 1 }], [])).toBe(NO_HEAD)
      expect(driver.publish()).toBe(false)
      expect(driver.enableInterrupts()).toBe(false)
    })

  it('an index that is ahead of everything, or goes backwards', () => {
    for (const idx of [3, 100, 0xffff]) {
      const { bench, driver, used } = one()
      bench.ring.publishUsedIdx(idx)
      expect(() => driver.takeUsed(used)).toThrow(PeerFault)
    }
  })

  it('the same id twice breaks the queue, unless it is tolerant', () => {
    const { bench, driver, used } = one()
    const twice = (): void => {
      bench.ring.setUsed(0, 0, 4)
      bench.ring.setUsed(1, 0, 4)
      bench.ring.publishUsedIdx(2)
    }
    twice()
    expect(driver.takeUsed(used)).toBe(true)
    expect(() => driver.takeUsed(used)).toThrow(PeerFault)

    const easy = one({ tolerant: true })
    easy.bench.ring.setUsed(0, 0, 4)
    easy.bench.ring.setUsed(1, 0, 4)
    easy.bench.ring.setUsed(2, 1, 0)
    easy.bench.ring.setUsed(3, 1, 0)
    easy.bench.ring.publishUsedIdx(4)
    expect(easy.driver.takeUsed(easy.used)).toBe(true)
    expect(easy.driver.takeUsed(easy.used)).toBe(true)
    expect(easy.driver.takeUsed(easy.used)).toBe(false)
    expect([easy.driver.inFlight, easy.driver.free, easy.driver.duplicates]).toEqual([0, 8, 2])
  })

  it('a length for a chain without a writable part is ignored: many devices report what they read', () => {
    const { bench, driver, used } = one()
    bench.ring.setUsed(0, 1, 4096)
    bench.ring.publishUsedIdx(1)
    expect(driver.takeUsed(used)).toBe(true)
    expect(used).toEqual({ head: 1, len: 0 })
  })

  it('descriptors are not read back: a device that rewrites the table changes nothing for the driver', () => {
    const bench = new Bench(8)
    const driver = bench.driver()
    const used: Used = { head: 0, len: 0 }
    for (let round = 0; round < 50; round++) {
      const head = driver.add(
        [
          { address: DATA, len: 1 },
          { address: DATA, len: 2 },
          { address: DATA, len: 3 },
        ],
        [],
      )
      driver.publish()
      bench.region.bytes.fill(0xff, 0, 8 * 16)
      bench.ring.setUsed(round, head, 0)
      bench.ring.publishUsedIdx(round + 1)
      expect(driver.takeUsed(used)).toBe(true)
      expect(driver.free).toBe(8)
    }
  })

  it('used out of order is fine', () => {
    const bench = new Bench(8)
    const driver = bench.driver()
    const heads = [3, 1, 2].map((n) =>
      driver.add(
        Array.from({ length: n }, () => ({ address: DATA, len: n })),
        [],
      ),
    )
    driver.publish()
    const used: Used = { head: 0, len: 0 }
    for (const [i, head] of heads.toReversed().entries()) bench.ring.setUsed(i, head, 0)
    bench.ring.publishUsedIdx(3)
    const seen = []
    while (driver.takeUsed(used)) seen.push(used.head)
    expect(seen).toEqual(heads.toReversed())
    expect(driver.free).toBe(8)
    // And the descriptors are all usable again.
    const all = new Set(Array.from({ length: 8 }, () => driver.add([{ address: DATA, len: 1 }], [])))
    expect(all.size).toBe(8)
  })
})

describe('a driver that lies to the device', () => {
  it('an available index more than the queue ahead (CVE-2016-5403)', () => {
    for (const idx of [9, 1000, 0xffff]) {
      const bench = new Bench(8)
      const device = bench.device()
      bench.ring.publishAvailIdx(idx)
      expect(() => device.gather(new Batch(), 'readable', 100)).toThrow(PeerFault)
      expect(() => device.enableNotify()).toThrow(PeerFault)
      device.break()
      expect(device.gather(new Batch(), 'readable', 100)).toBe(0)
      expect(device.enableNotify()).toBe(false)
    }
  })

  it('the same head twice in flight is used twice, and harms nobody (CVE-2026-45782)', () => {
    const bench = new Bench(8)
    const device = bench.device()
    bench.desc(2, DATA, 5)
    for (let i = 0; i < 3; i++) bench.ring.setAvailRing(i, 2)
    bench.ring.publishAvailIdx(3)
    const batch = new Batch()
    expect(device.gather(batch, 'readable', 100)).toBe(15)
    device.complete(batch, 15)
    device.flush()
    expect(bench.ring.usedIdx()).toBe(3)
  })

  it('a batch with a bad chain in it is not given away in part', () => {
    const bench = new Bench(8)
    const device = bench.device()
    bench.desc(0, DATA, 5)
    bench.desc(1, 1, 5)
    bench.ring.setAvailRing(0, 0)
    bench.ring.setAvailRing(1, 1)
    bench.ring.publishAvailIdx(2)
    expect(() => device.gather(new Batch(), 'readable', 100)).toThrow(PeerFault)
  })
})
