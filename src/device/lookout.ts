/**
 * Looks for what is about to come instead of sleeping until one is told. To be woken costs 10 to 20 µs for each side, most
 * of what a round trip costs. The processor is lent to others between two looks; where what is looked for does not come
 * in time, or others kept the processor, the next tries become seldom. Used by conversation.ts; transmit.ts tells it too
 * that the event loop is needed.
 */

import { BackOff } from './back-off.ts'

/** So much longer than asked and the machine has other things to do. */
const LATE_MS = 0.2

/** So long nobody else had anything to say, and it may be expected to go on like that. */
const ALONE_MS = 10

/** Who was told of something last, in this process, since when: its event loop is what a look holds up. */
let recent: object | undefined
let since = 0

/** Notes that somebody is told of something; whether it is the only one of late, so that a look holds up nobody else. */
export function alone(who: object): boolean {
  const now = performance.now()
  if (recent !== who) {
    recent = who
    since = now
  }
  return now - since >= ALONE_MS
}

export class Lookout {
  readonly #budgetMs: number
  readonly #seen: () => boolean
  readonly #backOff = new BackOff()
  /** It came last time, and in time: one miss is no reason to stop. */
  #trusted = false

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
    const good = seen && spent < this.#budgetMs + LATE_MS
    if (good || !this.#trusted) this.#backOff.tried(good)
    this.#trusted = good
    return seen
  }
}
