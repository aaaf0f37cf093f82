/** The fuzzer itself: inputs replay, feedback leads somewhere, findings are found, made small and kept. */

import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { Corpus } from '../../fuzz/corpus.ts'
import { Coverage, COVERAGE_HOOK } from '../../fuzz/coverage.ts'
import { Input } from '../../fuzz/input.ts'
import { instrument } from '../../fuzz/instrument.ts'
import { Random } from '../../fuzz/random.ts'
import { fuzz, type FuzzPlan } from '../../fuzz/run.ts'
import { simple, type FuzzTarget } from '../../fuzz/target.ts'

const quiet = (): void => {}

async function load<T>(code: string): Promise<T> {
  return (await import(`data:text/javascript,${encodeURIComponent(code)}`)) as T
}

async function runOne(target: FuzzTarget, plan: Partial<FuzzPlan> = {}): Promise<Awaited<ReturnType<typeof fuzz>>[0]> {
  const [result] = await fuzz({ targets: [target], seconds: 60, seed: 1, shrinkMs: 2000, ...plan }, quiet)
  return result!
}

afterEach(() => void Reflect.deleteProperty(globalThis, COVERAGE_HOOK))

describe('inputs', () => {
  const decisions = (r: Random): unknown[] =>
    [2, 256, 257, 65_536, 65_537, 1].map((n) => r.below(n)).concat(r.word(), ...r.bytes(5), ...r.bytes(100))

  it('the bytes that a seed made are the same decisions again, and a seed alone makes them too', () => {
    const storage = new Uint8Array(1000)
    const first = new Input(undefined, 42, storage)
    const wanted = decisions(new Random(first))
    expect(decisions(new Random(42))).toEqual(wanted)
    expect(decisions(new Random(new Input(first.used)))).toEqual(wanted)
    expect(first.used.length).toBe(1 + 1 + 2 + 2 + 4 + 4 + 5 + 4)
  })

  it('behind the bytes there are zeros, or what a seed gives', () => {
    const short = new Random(new Input(Uint8Array.of(9, 9)))
    expect([short.below(10), short.ended, short.below(256), short.ended, short.word(), short.below(7)]).toEqual([
      9,
      false,
      9,
      true,
      0,
      0,
    ])
    const longer = new Input(Uint8Array.of(9), 7, new Uint8Array(100))
    const r = new Random(longer)
    expect([r.below(10), r.word()]).toEqual([9, new Random(7).word()])
    expect(r.ended).toBe(false)
    expect(longer.used.length).toBe(5)
  })
})

describe('coverage', () => {
  const SAMPLE = `
    export function f(n) {
      let out = [];
      if (n > 5) out.push('big'); else if (n > 2) { out.push('middle') } else out.push('small');
      for (let i = 0; i < n; i++) out.push(i);
      do out.push('once'); while (false)
      switch (n) { case 1: case 2: out.push('1 or 2'); break; default: out.push(n ? n > 3 ? 'x' : 'y' : 'z') }
      const g = (a) => ({ a }), h = async () => n && (n, 2) || 3;
      class C { #n = n ?? 0; get n() { return this.#n } static make = () => new C() }
      for (const k in { n }) if (k) continue; else break
      try { if (n === 4) throw new Error('four') } catch { out.push('caught') }
      return [...out, g(n), C.make().n, h instanceof Function]
    }`

  it('instrumented code does the same, and counts', async () => {
    const coverage = new Coverage().install()
    const plain = await load<{ f: (n: number) => unknown[] }>(SAMPLE)
    const { code, blocks } = instrument(SAMPLE)
    const counted = await load<{ f: (n: number) => unknown[] }>(code)
    expect(coverage.blocks).toBe(blocks)
    expect(blocks).toBeGreaterThan(20)
    const seen = new Set<string>()
    for (const n of [0, 1, 2, 3, 4, 9]) {
      coverage.clear()
      expect(counted.f(n)).toEqual(plain.f(n))
      seen.add(coverage.features().join())
    }
    expect(seen.size).toBe(6)
  })

  it('leads through a maze that chance alone does not get through', async () => {
    const wanted = [17, 201, 3, 99, 250]
    const source = `export function walk(take) {
      ${wanted.map((byte) => `if (take() === ${byte}) {`).join(' ')} throw new Error('the end of the maze') ${'}'.repeat(wanted.length)}
    }`
    const coverage = new Coverage().install()
    const { walk } = await load<{ walk: (take: () => number) => void }>(instrument(source).code)
    let left = 40_000
    const maze = simple('maze', '', async (seed) => {
      const r = new Random(seed)
      if (left-- === 0) throw new Error('not found')
      walk(() => r.below(256))
      return 1
    })
    const guided = await runOne(maze, { coverage })
    expect(guided.finding?.message).toMatch(/the end of the maze$/)
    expect([...guided.finding!.input]).toEqual(wanted)
    left = 40_000
    expect((await runOne(maze)).finding?.message).toMatch(/not found$/)
  })

  it('the corpus keeps the shortest of what reaches the same, in its folder too', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vmchannel-corpus-'))
    try {
      const corpus = new Corpus(folder)
      expect(corpus.add(Uint8Array.from({ length: 10 }), [], [1, 2])).toBe(true)
      expect(corpus.add(Uint8Array.from({ length: 9 }), [], [1, 2])).toBe(false)
      expect(corpus.add(Uint8Array.from({ length: 4 }), [], [2])).toBe(true)
      expect([corpus.size, corpus.features]).toEqual([2, 2])
      expect(corpus.add(Uint8Array.of(1), [], [1, 2, 3])).toBe(true)
      expect([corpus.size, corpus.features]).toEqual([1, 3])
      expect(corpus.stored().map((bytes) => [...bytes])).toEqual([[1]])
      expect(readdirSync(folder).length).toBe(1)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

describe('findings', () => {
  it('are made as small as they get, by steps', async () => {
    const target = simple('sum', '', async (seed) => {
      const r = new Random(seed)
      let nines = 0
      for (let i = 0; i < 200 && !r.ended; i++) {
        r.step()
        if (r.below(10) === 9 && ++nines === 3) throw new Error('three nines')
        r.bytes(3)
      }
      return 1
    })
    const { finding, findings } = await runOne(target)
    expect(finding?.message).toBe('sum, seed 1: three nines')
    expect(findings[0]!.again).toBe(true)
    expect(finding!.input.length).toBe(9)
    const again = await runOne(target, { input: finding!.input, once: true })
    expect(again.finding?.message).toMatch(/three nines$/)
  })

  it('with `all`, each kind once, and the session is a new one', async () => {
    let [starts, runs] = [0, 0]
    const target: FuzzTarget = {
      name: 'kinds',
      title: '',
      start: () => {
        starts++
        return {
          close: () => {},
          async episode(seed) {
            if (runs++ > 2000) return 1
            const n = new Random(seed).below(40)
            if (n < 2) throw new TypeError(`n is ${n}`)
            if (n === 2) throw new RangeError('two')
            return 1
          },
        }
      },
    }
    const { findings } = await runOne(target, { all: true, seconds: 1 })
    expect(findings.map(({ finding }) => (finding.cause as Error).name).toSorted()).toEqual(['RangeError', 'TypeError'])
    expect(starts).toBeGreaterThan(2)
  })

  it('a step that keeps the event loop is one; many short ones are none', async () => {
    const busy = (ms: number): void => {
      const end = process.cpuUsage().user + process.cpuUsage().system + ms * 1000
      while (process.cpuUsage().user + process.cpuUsage().system < end);
    }
    const steps = (ms: number, n: number): FuzzTarget => ({
      ...simple('busy', '', async (seed) => {
        const r = new Random(seed)
        for (let i = 0; i < n; i++) {
          r.step()
          busy(ms)
        }
        return n
      }),
      turnMs: 50,
    })
    expect((await runOne(steps(80, 1), { once: true, shrinkMs: 0 })).finding?.message).toMatch(
      /kept the event loop \d+ ms, more than 50/,
    )
    expect((await runOne(steps(5, 20), { once: true })).finding).toBeUndefined()
  })

  it('a rejection that nobody listens to is one', async () => {
    const target = simple('stray', '', async () => {
      void Promise.reject(new Error('alone'))
      await new Promise((resolve) => setTimeout(resolve, 20))
      return 1
    })
    const { finding } = await runOne(target, { once: true })
    expect(finding?.message).toBe('stray, seed 1: nobody listened for: alone')
  })
})
