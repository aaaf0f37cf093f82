/**
 * When to give the buffers of a transmitq back: at once, or some of them together.
 *
 * Linux takes no notice of a used transmit buffer until it next writes, or until it has none left. To give each back at
 * once is an interrupt for each small write, in the middle of the guest's next work: more than the write itself costs.
 * So they are held back, for `settleMs` at most, while there is reason to think that nobody waits for them. Other
 * drivers do wait (FreeBSD's, for every write): who sends nothing more before the time is over, twice and more, is
 * given its buffers at once, for longer and longer before this is tried again.
 *
 * Used by transmit.ts. The used ring says nothing of what is held back: `DeviceQueue.staged` does.
 */

/** How many bytes may be held back. */
const SETTLE_LEN = 256 << 10
/** Part of the ring that may be held back, in descriptors as they lie in memory, indirect ones too. */
const SETTLE_PART = 4
/** Batches given back at once after a trial that nobody answered: doubled each time, up to this. */
const BACK_OFF_MAX = 256

export class Settlement {
  #len = 0
  #descriptors = 0
  #atOnce = 0
  #backOff = 1
  #trial = false
  #moved = false

  /** A batch was sent: bytes and segments of it. */
  sent(len: number, segments: number): void {
    this.#len += len
    this.#descriptors += segments
    // The driver goes on without its buffers: it does not wait for them.
    if (this.#trial) this.#moved = true
  }

  /** Whether what was sent may stay held back, with a queue of `size` entries. */
  mayWait(size: number): boolean {
    if (this.#len >= SETTLE_LEN || this.#descriptors * SETTLE_PART >= size) return false
    if (this.#atOnce === 0) return true
    this.#atOnce--
    return false
  }

  /** The time runs. */
  started(): void {
    this.#trial = true
    this.#moved = false
  }

  /** The time is over: what became of the trial. */
  expired(): void {
    this.#trial = false
    if (this.#moved) this.#backOff = 1
    else {
      this.#atOnce = this.#backOff
      this.#backOff = Math.min(this.#backOff * 2, BACK_OFF_MAX)
    }
  }

  /** Everything was given back. */
  settled(): void {
    this.#len = 0
    this.#descriptors = 0
  }
}
