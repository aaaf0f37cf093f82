/** When a device that asks for resets is given up: by how often in a time, for a guest may run for years. */

/** So many within so long are one too many. */
const RESETS_MAX = 5
const WINDOW_MS = 60_000

export class ResetLimit {
  readonly #times: number[] = []

  /** Notes one; where it is one too many, in what way. */
  tooMany(now: number): string | undefined {
    while (this.#times.length > 0 && this.#times[0]! <= now - WINDOW_MS) this.#times.shift()
    this.#times.push(now)
    return this.#times.length > RESETS_MAX ? `${this.#times.length} times within ${WINDOW_MS / 1000} s` : undefined
  }
}
