/** All scenarios, in the order of the table; those that spoil their machine come last. */
import type { Scenario } from '../scenario.ts'
import { INTERRUPTED } from './interrupted.ts'
import { LOOPBACK } from './loopback.ts'
import { PLUG } from './plug.ts'
import { SMOKE } from './smoke.ts'

export const SCENARIOS: readonly Scenario[] = [...SMOKE, ...LOOPBACK, ...INTERRUPTED, ...PLUG]
