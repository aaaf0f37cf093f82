/** The bench runs, its lines have their fields, and its guard and plot say what they should. No figure is judged. */
import { expect, it } from 'vitest'
import { fallen } from '../../bench/baseline.ts'
import { measure, type Line } from '../../bench/measure.ts'
import { plot } from '../../bench/plot.ts'
import { ALL_IDS, chosenCases, SUITES } from '../../bench/suites.ts'

const line = (id: string, ratio: number | null, limit: number | null = null): Line => ({
  ...{ case: id, unit: 'MB/s', ours: 100, qemu: 50, ratio, limit, runs: 7 },
  spread: [(ratio ?? 1) * 0.8, (ratio ?? 1) * 1.2],
})

it('has every case that was promised, each once', () => {
  const promised =
    'ring.small ring.4k native.g2h.32k native.g2h.64b native.h2g.bulk e2e.g2h.32k e2e.g2h.4k e2e.g2h.64b e2e.g2h.splice ' +
    'e2e.h2g.bulk e2e.rtt.1b.p50 e2e.rtt.1b.p99 e2e.rtt.64b.p50 e2e.rtt.64b.p99 e2e.cpu.g2h e2e.cpu.h2g e2e.hvc ' +
    'usernet.g2h usernet.h2g usernet.rtt scale.ports.511 scale.vms.32 ' +
    'guest.inproc.write guest.inproc.read guest.cuse.write guest.cuse.read guest.cuse.rtt'
  expect(ALL_IDS).toEqual(expect.arrayContaining(promised.split(' ')))
  expect(new Set(ALL_IDS).size).toBe(ALL_IDS.length)
})

it.for(['ring.small', 'native.g2h.64b'])('%s runs and gives a whole line', { timeout: 120_000 }, async (id) => {
  const suite = SUITES.find((one) => chosenCases(one, [id]).length > 0)!
  const session = await suite.start()
  try {
    const [info] = chosenCases(suite, [id])
    const [result] = await measure(session, { ...info!, warmUp: false }, 1).catch((error: unknown) => {
      throw new Error(`${id}: ${String(error)}`, { cause: error })
    })
    expect(Object.keys(result!.line)).toEqual(['case', 'unit', 'ours', 'qemu', 'ratio', 'limit', 'runs', 'spread'])
    expect(result!.line).toMatchObject({ case: id, runs: 1 })
    expect(result!.line.ours).toBeGreaterThan(0)
    expect(result!.line.qemu === null).toBe(id.startsWith('ring'))
    expect(result!.line.limit).toBeGreaterThan(0)
  } finally {
    await session.close()
  }
})

it('guards ratios, not times: below the worst pair and the tolerance', () => {
  const baseline = [line('a', 2), line('b', 1), line('ring', null, 200)]
  expect(fallen(baseline, [line('a', 1.5), line('b', 0.75), line('ring', null, 210), line('new', 0.1)])).toEqual([])
  expect(fallen(baseline, [line('a', 1.4), line('ring', null, 400)]).map(({ id }) => id)).toEqual(['a', 'ring'])
})

it('plots what has a ratio', () => {
  const svg = plot([line('e2e.g2h.32k', 1.5), line('ring.small', null, 200)], 'a & b')
  expect(svg).toContain('e2e.g2h.32k')
  expect(svg).toContain('a &amp; b')
  expect(svg).not.toContain('ring.small')
})
