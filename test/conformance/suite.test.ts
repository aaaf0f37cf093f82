/**
 * The conformance suite on all that is ours. QEMU's own device is asked a few things only, to see that the suite works
 * on devices of others: what it fails is told by `npm run conformance`, and is no failure of ours.
 */

import { afterAll, describe, expect, it } from 'vitest'
import type { Case, Result } from '../../conformance/case.ts'
import { DEVICE_CASES } from '../../conformance/device/cases.ts'
import { DRIVER_CASES } from '../../conformance/driver/cases.ts'
import { runDevice, runDriver } from '../../conformance/suite.ts'
import { LoopbackTarget } from '../../conformance/targets/loopback.ts'
import { qemuTarget, vfioUserTarget } from '../../conformance/targets/qtest.ts'
import type { DeviceTarget } from '../../conformance/targets/target.ts'
import type { DeviceTest } from '../../conformance/raw/test.ts'
import { check } from '../../conformance/case.ts'

const MINUTES = 60_000

async function failures(run: (report: (result: Result) => void) => Promise<void>): Promise<string[]> {
  const results: Result[] = []
  await run((result) => results.push(result))
  expect(results.length).toBeGreaterThan(0)
  for (const { status, why } of results) if (status !== 'pass') expect(why).not.toBe('')
  return results.filter(({ status }) => status === 'fail').map(({ id, why }) => `${id}: ${why}`)
}

const all = (): boolean => true

it('our driver', async () => {
  expect(await failures((report) => runDriver(DRIVER_CASES, all, report))).toEqual([])
})

describe.each<[string, () => DeviceTarget]>([
  ['in this process', () => new LoopbackTarget()],
  ['over vfio-user', vfioUserTarget],
])('our device %s', (_, make) => {
  const target = make()
  afterAll(() => target.close())

  it('passes', { timeout: 5 * MINUTES }, async () => {
    expect(await failures((report) => runDevice(target, DEVICE_CASES, all, report))).toEqual([])
  })
})

describe("QEMU's own device", () => {
  const target = qemuTarget()
  afterAll(() => target.close())

  it('can be asked the same', { timeout: 5 * MINUTES }, async () => {
    const wanted = (id: string): boolean => ['R64', 'R73', 'R82', 'R101', 'S5', 'S13', 'S18'].includes(id)
    expect(await failures((report) => runDevice(target, DEVICE_CASES, wanted, report))).toEqual([])
  })
})

it('a case that finds something fails with its words, and one that throws is no pass', async () => {
  const cases: Case<DeviceTest>[] = [
    { id: 'R1', run: (test) => check(test.status === 1, 'status is not 1') },
    {
      id: 'R2',
      run() {
        throw new TypeError('a mistake of the case')
      },
    },
    { id: 'R8', na: 'for no reason at all' },
  ]
  const results: Result[] = []
  const wanted = (id: string): boolean => ['R1', 'R2', 'R3', 'R8', 'R9'].includes(id)
  await runDevice(new LoopbackTarget(), cases, wanted, (result) => results.push(result))
  expect(results.map(({ id, status }) => [id, status])).toEqual([
    ['R1', 'fail'],
    ['R2', 'fail'],
    ['R3', 'n/a'],
    ['R8', 'n/a'],
    ['R9', 'fail'],
  ])
  expect(results[0]!.why).toBe('status is not 1')
  expect(results[1]!.why).toContain('the case itself failed: TypeError: a mistake of the case')
  expect(results[4]!.why).toBe('the suite has no case for it')
})
