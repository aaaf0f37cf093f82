/**
 * Looks for what is about to come instead of sleeping until one is told. To be woken costs 10 to 20 µs for each side, most
 * of what a round trip costs. The processor is lent to others between two looks; where what is looked for does not come
 * in time, or others kept the processor, the next tries become seldom. Used by port.ts.
 */

import { BackOff } from './back-off.ts'

/** So much longer than asked and the machine has other things to do. */
const LATE_MS = 0.2

/** Who was told of something last, in this process: its event loop is what a look holds up. */
let recent: object | undefined

/** Notes that `port` is told of something; whether it was the last one as well, so that nobody else is held up. */
export function again(port: object): boolean {
  const same = recent === port
  recent = port
  return same
}

export class Lookout {
  readonly #budgetMs: number
  readonly #seen: () => boolean
  readonly #backOff = new BackOff()

  /** Looks for what `seen` says, for so many milliseconds at most. */
  constructor(budgetMs: number, seen: () => boolean) {
    this.#budgetMs = budgetMs
    this.#seen = seen
  }

  /** Whether it came, `giveWay` having lent the processor in between. */
  look(giveWay: () => void): boolean {
    if (!this.#backOff.due()) return false
    const start = performance.now()
    let seen: boolean
    let spent: number
    do {
      giveWay()
      seen = this.#seen()
      spent = performance.now() - start
    } while (!seen && spent < this.#budgetMs)
    this.#backOff.tried(seen && spent < this.#budgetMs + LATE_MS)
    return seen
  }
}
