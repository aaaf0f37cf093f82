/** A handful of chains that are looked at, and moved, together. Filled by device-queue.ts. */

import { Iovec } from '../mem/iovec.ts'
import type { Direction } from './chain.ts'

/** Chains in one batch. */
export const BATCH_MAX = 256

/** What one `gather` found; one per device is enough, batches do not outlive a turn. */
export class Batch {
  readonly list: Iovec = new Iovec()
  readonly heads: Uint16Array = new Uint16Array(BATCH_MAX)
  /** Length of the wanted part of chain i, bytes, with what was moved of it before. */
  readonly lens: Float64Array = new Float64Array(BATCH_MAX)
  direction: Direction = 'readable'
  /** Chains. */
  count = 0
}
