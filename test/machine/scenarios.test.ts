/**
 * The short form of `npm run scenarios`: a stock guest with our device and QEMU's
 * own, the same done to both. Linux 7.x here, the command has 6.1. Needs the build.
 */
import { beforeAll, describe, expect, it } from 'vitest'
import { SCENARIOS } from '../../scenarios/list/all.ts'
import { runScenarios } from '../../scenarios/run.ts'
import type { DeviceName, ScenarioResult } from '../../scenarios/scenario.ts'

const SHORT = SCENARIOS.filter(({ short }) => short)
const DEVICES: readonly DeviceName[] = ['ours', 'qemu']

describe('the scenarios of the field', () => {
  const results: ScenarioResult[] = []

  beforeAll(
    () => runScenarios(SHORT, { devices: DEVICES, kernel: '7.x', report: (result) => void results.push(result) }),
    900_000,
  )

  it('each has its name, and what cannot be says why', () => {
    expect(new Set(SCENARIOS.map(({ id }) => id)).size).toBe(SCENARIOS.length)
    const reasons = SCENARIOS.flatMap(({ never }) => Object.values(never ?? {}))
    expect(reasons.every((reason) => reason.length > 20)).toBe(true)
    expect(results).toHaveLength(SHORT.length * DEVICES.length)
  })

  // QEMU's device is the control: where it fails, the scenario or the guest is wrong, or QEMU is, which has to be said.
  it.each(DEVICES.flatMap((device) => SHORT.map(({ id, title }) => [device, id, title] as const)))(
    '%s: %s: %s',
    (device, id) => {
      const result = results.find((one) => one.device === device && one.id === id)!
      expect(result, [result.why, ...(result.log ?? [])].join('\n')).toMatchObject({ status: 'pass' })
    },
  )
})
