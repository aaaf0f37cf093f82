/**
 * Looks into a ring for a moment before its interrupt is asked for: while the device is at work what it gives back is
 * usually near, and in a guest an interrupt costs more than all the rest (several trips to the VMM, and a turn of the
 * event loop). Used by transmit.ts and receive.ts; of no use where the device runs on the same thread.
 */

import type { DriverQueue } from '../ring/driver-queue.ts'

/** Time to look when nothing comes: longer where that was worth it the last time, shorter where it was not. */
const SHORTEST_US = 20
/** Looks between two looks at the clock, which is a trip to the VMM in some guests. */
const LOOKS = 256

export class Patience {
  /** Times the clock was looked at by the last `wait`. */
  rounds = 0
  readonly #longest: number
  #now = SHORTEST_US

  /** At most so many microseconds at a time; 0: none. */
  constructor(longest: number) {
    this.#longest = longest
  }

  /** Whether the device gives something back in a moment. PeerFault as from the queue. */
  wait(queue: DriverQueue): boolean {
    this.rounds = 0
    if (this.#longest === 0) return false
    let end = 0
    for (;;) {
      this.rounds++
      for (let i = 0; i < LOOKS; i++) {
        if (!queue.hasUsed()) continue
        // Only what took a while says anything.
        if (end > 0) this.#now = Math.min(this.#longest, this.#now * 2)
        return true
      }
      const now = performance.now()
      if (end === 0) end = now + this.#now / 1000
      else if (now > end) break
    }
    this.#now = Math.max(Math.min(SHORTEST_US, this.#longest), this.#now / 2)
    return false
  }
}
