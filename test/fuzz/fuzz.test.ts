/**
 * A short form of `npm run fuzz`, the seeds that once found something, and that a finding is found at all. Control and
 * vfio-user targets need the build.
 */

import { describe, expect, it } from 'vitest'
import { REGRESSIONS } from '../../fuzz/regressions.ts'
import { fuzz } from '../../fuzz/run.ts'
import { simple, TURN_MS } from '../../fuzz/target.ts'
import { LONG, TARGETS } from '../../fuzz/targets.ts'

const SECONDS = Number(process.env['FUZZ_SECONDS'] ?? 10)
/** Cold code on a busy machine takes its time: what the fuzzer asks of a turn, five times over. */
const SHORT = TARGETS.filter((target) => !LONG.has(target)).map((target) => ({
  ...target,
  turnMs: 5 * (target.turnMs ?? TURN_MS),
}))

describe('fuzzing', () => {
  it.each(SHORT.map((target) => [target.name, target] as const))('%s', { timeout: 120_000 }, async (_, target) => {
    const [result] = await fuzz({ targets: [target], seconds: SECONDS / SHORT.length, seed: 1 }, () => {})
    expect(result!.finding?.stack).toBeUndefined()
    expect(result!.cases).toBeGreaterThan(0)
    console.log(`${result!.cases} cases`)
  })

  it.each(REGRESSIONS)('$target: $what', { timeout: 120_000 }, async ({ target, seed = 0, input }) => {
    const targets = TARGETS.filter(({ name }) => name === target)
    expect(targets.length).toBe(1)
    const from = input === undefined ? {} : { input: Buffer.from(input, 'base64') }
    const [result] = await fuzz({ targets, seconds: 1, seed, once: true, ...from }, () => {})
    expect(result!.finding?.stack).toBeUndefined()
  })

  it('a finding names its target and its seed, and a hang is one', async () => {
    let runs = 0
    const breaks = simple('breaks', '', async () => {
      if (++runs === 3) throw new Error('seven')
      return 1
    })
    const hangs = simple('hangs', '', () => new Promise<number>(() => {}))
    const results = await fuzz({ targets: [breaks, hangs], seconds: 2, seed: 5, hangMs: 50 }, () => {})
    expect(results.map(({ finding }) => finding?.message)).toEqual([
      'breaks, seed 7: seven',
      'hangs, seed 5: no end after 0.05 s',
    ])
  })
})
