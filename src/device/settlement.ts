/**
 * When to interrupt the driver for transmit buffers that were used: at once, or some of them together, or not at all.
 *
 * Used entries are published at once, always; only the interrupt waits. Linux takes no notice of a used transmit buffer
 * until it next writes, when it takes all that it finds, or until it has none left; for a console it looks until the
 * buffer is there. An interrupt for each is work in the middle of its next write, more than the write itself. So the
 * question whether one is wanted is put off, `settleMs` at most, while there is reason to think that nobody waits: a
 * driver that has come by meanwhile does not want it any more. Other drivers do wait (FreeBSD's, for every write): who
 * sends nothing more before the time is over, twice and more, is interrupted at once, for longer and longer before this
 * is tried again. Used by transmit.ts.
 */

import { BackOff } from './back-off.ts'

/** Part of the ring that the driver may not have taken back, in descriptors as they lie in memory, indirect ones too. */
const SETTLE_PART = 4
export class Settlement {
  #descriptors = 0
  readonly #trials = new BackOff()
  #trial = false
  #moved = false

  /** A batch was sent: its segments. */
  sent(segments: number): void {
    this.#descriptors += segments
    // The driver goes on without being told: it does not wait.
    if (this.#trial) this.#moved = true
  }

  /** Whether the interrupt for what was sent may wait, with a queue of `size` entries. */
  mayWait(size: number): boolean {
    return this.#descriptors * SETTLE_PART < size && this.#trials.due()
  }

  /** The time runs. */
  started(): void {
    this.#trial = true
    this.#moved = false
  }

  /** The time is over, and the driver has come by itself or not. */
  expired(cameBy: boolean): void {
    this.#trial = false
    this.#trials.tried(this.#moved || cameBy)
  }

  /** The driver was told, or has come by itself. */
  settled(): void {
    this.#descriptors = 0
  }
}
