/**
 * How often to try what pays with some peers and not with others: after each trial in vain the pause before the next is
 * twice as long, after a good one there is none. Used by transmit.ts and port.ts.
 */

/** Longest pause, in chances. */
const PAUSE_MAX = 256

export class BackOff {
  #pause = 0
  #next = 1

  /** A chance: whether to try. */
  due(): boolean {
    if (this.#pause === 0) return true
    this.#pause--
    return false
  }

  /** What became of the trial. */
  tried(good: boolean): void {
    if (good) this.#next = 1
    else {
      this.#pause = this.#next
      this.#next = Math.min(this.#next * 2, PAUSE_MAX)
    }
  }
}
