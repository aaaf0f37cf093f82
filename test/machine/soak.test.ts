/** Short forms of `npm run soak` and `npm run soak -- --flood`: every byte compared, nothing grows. Need the build. */

import { describe, expect, it } from 'vitest'
import { flood } from '../../soak/flood.ts'
import { soak } from '../../soak/run.ts'

const MINUTES = Number(process.env['SOAK_MINUTES'] ?? 2)
const SEED = Number(process.env['SOAK_SEED'] ?? 1)

describe('soak', () => {
  it(`${MINUTES} minutes of everything, seed ${SEED}`, { timeout: (MINUTES + 10) * 60_000 }, async () => {
    const report = await soak({ minutes: MINUTES, seed: SEED, note: () => {} })
    console.log(JSON.stringify(report))
    expect(report.failure).toBeUndefined()
    expect(report.transfers).toBeGreaterThan(3)
    expect(report.up).toBeGreaterThan(0)
    expect(report.down).toBeGreaterThan(0)
  })

  // Two scenes of seven; the others take their minutes with `npm run soak -- --flood`.
  it('flood and starvation: nothing grows, nothing spins, other ports go on', { timeout: 900_000 }, async () => {
    const results = await flood({ speeds: false, only: /read nothing$/, note: () => {} })
    expect(results.length).toBe(2)
    expect(results.filter(({ status }) => status === 'fail')).toEqual([])
  })
})
