/** All that can be measured, in the order in which it is. */
import { END_TO_END, KEEPER, VECTORS } from './cases.ts'
import type { CaseInfo, Suite } from './case.ts'
import { GUEST } from './guest.ts'
import { NATIVE } from './native.ts'
import { RING } from './ring.ts'
import { SCALE_PORTS } from './scale-ports.ts'
import { SCALE_VMS } from './scale-vms.ts'
import { USERNET_LINK } from './usernet-link.ts'
import { USERNET } from './usernet.ts'

export const SUITES: readonly Suite[] = [
  RING,
  NATIVE,
  END_TO_END,
  USERNET,
  USERNET_LINK,
  KEEPER,
  VECTORS,
  GUEST,
  SCALE_PORTS,
  SCALE_VMS,
]

export const ALL_IDS: readonly string[] = SUITES.flatMap(({ cases }) => cases.flatMap(({ ids }) => ids))

/** Whether a figure was asked for: by its id, by the start of it, or by nothing at all. */
export function chosen(id: string, parts: readonly string[]): boolean {
  return parts.length === 0 || parts.some((part) => id.startsWith(part))
}

export function chosenCases(suite: Suite, parts: readonly string[]): CaseInfo[] {
  return suite.cases.filter(({ ids }) => ids.some((id) => chosen(id, parts)))
}
