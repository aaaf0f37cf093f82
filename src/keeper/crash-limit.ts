/**
 * When to give up: a guest's request that kills each device process it meets must not do so for ever. Two limits:
 * deaths in a row, each soon after the process was ready (or before), and deaths in an hour.
 */

const SOON_MS = 1000
const SOON_MAX = 5
const HOUR_MS = 3_600_000
const HOUR_MAX = 100

/** For tests that kill a process again and again: no limit, and a spare process at once. */
export const UNLIMITED: boolean = process.env['VMCHANNEL_KEEPER_TEST'] === '1'

export class CrashLimit {
  readonly #times: number[] = []
  #soon = 0
  #ready: number | undefined

  ready(now: number): void {
    this.#ready = now
  }

  /** Notes a death; where it is one too many, in what way. */
  tooMany(now: number): string | undefined {
    const soon = this.#ready === undefined || now - this.#ready < SOON_MS
    this.#ready = undefined
    this.#soon = soon ? this.#soon + 1 : 0
    this.#times.push(now)
    while (this.#times[0]! <= now - HOUR_MS) this.#times.shift()
    if (UNLIMITED) return undefined
    if (this.#soon >= SOON_MAX) return `${SOON_MAX} times in a row, each time at once`
    return this.#times.length >= HOUR_MAX ? `${HOUR_MAX} times in an hour` : undefined
  }
}
