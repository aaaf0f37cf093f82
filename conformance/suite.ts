/** Runs cases against a target and says what came of each. */

import { Finding, NotApplicable, type Case, type Result, type Status } from './case.ts'
import { CATALOG, type Entry } from './catalog/catalog.ts'
import { DriverTest } from './driver/test.ts'
import { DeviceTest } from './raw/test.ts'
import type { DeviceTarget } from './targets/target.ts'

export type Wanted = (id: string) => boolean
export type Report = (result: Result) => void

/** Every entry of the catalogue is answered, in its order. */
export async function runCases<Test>(
  where: { readonly target: string; readonly over: string },
  half: 'device' | 'driver',
  cases: readonly Case<Test>[],
  wanted: Wanted,
  report: Report,
  attempt: (run: (test: Test) => void | Promise<void>) => Promise<void>,
): Promise<void> {
  const byId = new Map(cases.map((entry) => [entry.id, entry]))
  for (const entry of CATALOG) {
    if (!wanted(entry.id)) continue
    const { status, why } = await answer(entry, half, byId.get(entry.id), attempt)
    report({ id: entry.id, title: entry.title, target: where.target, over: where.over, status, why })
  }
}

async function answer<Test>(
  entry: Entry,
  half: 'device' | 'driver',
  found: Case<Test> | undefined,
  attempt: (run: (test: Test) => void | Promise<void>) => Promise<void>,
): Promise<{ status: Status; why: string }> {
  if (entry.half !== half && entry.half !== 'both') return { status: 'n/a', why: `a rule for the ${entry.half}` }
  if (!found) return { status: 'fail', why: 'the suite has no case for it' }
  if ('na' in found) return { status: 'n/a', why: found.na }
  try {
    await attempt(found.run)
    return { status: 'pass', why: '' }
  } catch (error) {
    if (error instanceof NotApplicable) return { status: 'n/a', why: error.message }
    if (error instanceof Finding) return { status: 'fail', why: error.message }
    // A mistake of the suite's, or a machine that went away under it: no verdict on the rule, and no pass either.
    return {
      status: 'fail',
      why: `the case itself failed: ${error instanceof Error ? (error.stack ?? '').split('\n').slice(0, 3).join(' ') : String(error)}`,
    }
  }
}

export async function runDevice(
  target: DeviceTarget,
  cases: readonly Case<DeviceTest>[],
  wanted: Wanted,
  report: Report,
): Promise<void> {
  await runCases(target, 'device', cases, wanted, report, async (run) => {
    const machine = await target.open()
    let passed = false
    try {
      const test = new DeviceTest(machine)
      await run(test)
      const dead = machine.dead()
      if (dead !== undefined) throw new Finding(dead)
      passed = !test.spoiled
      if (passed) await test.leave()
    } catch (error) {
      passed = error instanceof NotApplicable
      throw error
    } finally {
      // It must not write to memory that the next case gets.
      if (machine.dead() === undefined) new DeviceTest(machine).reset()
      await machine.end()
      // What one case has broken must not be held against the next.
      if (!passed) await target.close()
    }
  })
}

export function runDriver(cases: readonly Case<DriverTest>[], wanted: Wanted, report: Report): Promise<void> {
  const where = { target: 'driver', over: 'loopback' }
  return runCases(where, 'driver', cases, wanted, report, async (run) => run(new DriverTest()))
}
