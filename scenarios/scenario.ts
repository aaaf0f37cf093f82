/** What a scenario is: written once, run on every device by the same words. */
import type { Side } from './side.ts'

export type DeviceName = 'ours' | 'qemu'

export interface Scenario {
  id: string
  title: string
  /** What avocado-vt (tp-qemu) calls it. */
  field: string
  /** In the short form, that of `npm test`. */
  short?: boolean
  /** Where it is not run at all, and why. */
  never?: Partial<Record<DeviceName, string>>
  /** The machine cannot be used any more afterwards. */
  spoils?: boolean
  /** What is worth to know of a pass; throws where it fails, NotHere where it cannot be run. */
  run(side: Side): Promise<string | void>
}

/** A line of `npm run scenarios -- --json`. */
export interface ScenarioResult {
  id: string
  title: string
  device: DeviceName
  status: 'pass' | 'fail' | 'n/a'
  /** Why it failed or could not be run; what was seen where it passed. */
  why: string
  seconds: number
  /** Of a failure: what device and guest said last. */
  log?: string[]
}

/** The guest or the device has not what the scenario is about. */
export class NotHere extends Error {
  override name = 'NotHere'
}

export function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what)
}

export function same(found: unknown, wanted: unknown, what: string): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`${what}: ${a} instead of ${b}`)
}
