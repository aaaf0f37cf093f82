/**
 * Looks for more work before it goes to sleep: after a request the next one is usually near, and a turn of the event
 * loop costs more than all the rest. For a short while it asks the devices that were busy and the rings, and gives the
 * processor away in between: on one processor that is when the program that waits for us makes its next request.
 *
 * An idle driver sleeps; one that is busy all the time still lets the event loop have a turn every few milliseconds.
 */

import { microseconds, yieldCpu } from '../../ffi/yield.ts'

/** Something with requests: deals with at most so many of those that are there, and says whether there were any. */
export interface Busy {
  serve(most: number): boolean
}

/**
 * How long to look when nothing comes: longer where that was worth it the last time, shorter where it was not. A machine
 * with other things to do (a host that is short of processors) ends at the shortest by itself.
 */
const PATIENCE_MIN_US = 20
const PATIENCE_MAX_US = 120
/** How long a device is asked after its last request; the longest stay. */
const RECENT_US = 2000
const STAY_US = 4000

export class BusyLoop {
  readonly #poll: () => boolean
  readonly #recent = new Map<Busy, number>()
  #patience = PATIENCE_MIN_US
  #running = false
  #resume = false

  /** `poll` looks into the rings; true when something was there. */
  constructor(poll: () => boolean) {
    this.#poll = poll
  }

  /** A device has had a request, or an answer: it will have another request soon. */
  touch(device: Busy): void {
    this.#recent.set(device, microseconds())
  }

  forget(device: Busy): void {
    this.#recent.delete(device)
  }

  /** Stays until nothing comes any more. Called from the event loop, after something has happened. */
  run(): void {
    if (this.#running || this.#resume) return
    this.#running = true
    const start = microseconds()
    let last = start
    let waited = false
    while (this.#recent.size > 0) {
      let some = this.#poll()
      for (const device of this.#recent.keys()) {
        if (!device.serve(1)) continue
        some = true
        this.#recent.set(device, last)
      }
      // The answer has woken the program; on one processor it needs ours to make its next request.
      yieldCpu()
      const now = microseconds()
      if (some) {
        if (waited) this.#patience = Math.min(PATIENCE_MAX_US, this.#patience * 2)
        last = now
      } else if (now - last > this.#patience) {
        this.#patience = Math.max(PATIENCE_MIN_US, this.#patience / 2)
        break
      } else this.#forgetOld(now)
      waited = !some
      if (now - start > STAY_US) {
        this.#later()
        break
      }
    }
    this.#running = false
  }

  #forgetOld(now: number): void {
    for (const [device, at] of this.#recent) if (now - at > RECENT_US) this.#recent.delete(device)
  }

  /** The event loop has its turn first. */
  #later(): void {
    this.#resume = true
    setImmediate(() => {
      this.#resume = false
      this.run()
    })
  }
}
