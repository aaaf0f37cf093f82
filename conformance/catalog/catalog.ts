/**
 * All that is asked, by id: R rules of virtio 1.3, A and B attacks on consoles and on rings and transports, D on
 * vhost-user, E on vfio-user, S defects that others had. The cases (device/, driver/, vfio-user/) have the same ids.
 */

import { ATTACKS } from './attacks.ts'
import { DEFECTS } from './defects.ts'
import { RING_RULES } from './rules.ts'
import { TRANSPORT_RULES } from './transport-rules.ts'

export type Level = 'MUST' | 'SHOULD' | 'text' | 'attack' | 'defect'

export type Row = readonly [id: string, half: Entry['half'], level: Level, section: string, title: string]

export interface Entry {
  readonly id: string
  readonly title: string
  /** Section of virtio 1.3, or what it is about. */
  readonly section: string
  /** Whose duty it is. */
  readonly half: 'device' | 'driver' | 'both'
  /** "text" is description that can be tested though no sentence of it is normative. */
  readonly level: Level
}

export const CATALOG: readonly Entry[] = [...RING_RULES, ...TRANSPORT_RULES, ...ATTACKS, ...DEFECTS].map(
  ([id, half, level, section, title]) => ({ id, title, section, half, level }),
)
