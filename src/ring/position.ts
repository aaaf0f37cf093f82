/**
 * How far a queue is, where a successor finds it. A position belongs to one life of its queue, from `enable` to
 * `disable`: what another life has left, a receipt included, says nothing about a new ring. Used by device-queue.ts.
 */

import type { Receipts } from '../mem/receipts.ts'

/** Where queues note how far they are, for a successor: one cell each. */
export interface QueueNotes {
  positions: Float64Array
  receipts: Receipts | undefined
}

/** A position is the index of the first chain not consumed, times this, plus the bytes of it that were moved. */
const POSITION_UNIT = 2 ** 33
/** The queue has no ring. */
const NOWHERE = -1

export class QueuePosition {
  readonly cell: number
  readonly receipts: Receipts | undefined
  readonly #cells: Float64Array

  constructor(index: number, notes: QueueNotes | undefined) {
    this.#cells = notes?.positions ?? new Float64Array(1)
    this.cell = notes ? index : 0
    this.receipts = notes?.receipts
  }

  /** What another process has left; undefined where its queue had no ring any more. */
  left(): { idx: number; offset: number } | undefined {
    const position = this.#cells[this.cell]!
    if (position < 0) return undefined
    return { idx: Math.floor(position / POSITION_UNIT) & 0xffff, offset: position % POSITION_UNIT }
  }

  /**
   * After bytes have moved, or chains gone back. In this order: a receipt counts for as long as the position is its
   * own.
   */
  store(idx: number, offset: number): void {
    this.#cells[this.cell] = idx * POSITION_UNIT + offset
    this.receipts?.settle(this.cell)
  }

  /** The life of the queue is over. In this order: without a receipt no position is wrong. */
  end(): void {
    this.receipts?.settle(this.cell)
    this.#cells[this.cell] = NOWHERE
  }
}
