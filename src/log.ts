/**
 * What the library needs of a logger, and the one that is silent. The daemon passes pino; a user may pass anything.
 * Never called in a ring loop: the data path counts, it does not talk.
 */

import { cut, escapeLine } from './escape.ts'

export interface Log {
  error(message: string): void
  warn(message: string): void
  info(message: string): void
  debug(message: string): void
  /** A log for one of several whose lines may be many: with its name before them, and a limit of its own. */
  scope?(name: string): Log
}

export const SILENT: Log = { error() {}, warn() {}, info() {}, debug() {} }

/** Makes text of the other half fit to quote: escaped, with the backslash itself, and of bounded length. */
export function printable(text: string, max = 120): string {
  const safe = escapeLine(text.slice(0, max + 1).replaceAll('\\', '\\\\'))
  return safe.length > max ? `${cut(safe, max)}…` : safe
}

/** Characters of one message. */
export const LOG_LINE_MAX = 2000
/** Lines in one go, and lines a second after that. */
const BURST = 200
const RATE = 20

/** A rate limit for lines of one source: the other half causes some of them, as often as it likes. */
export class LineLimit {
  #tokens = BURST
  #time = performance.now()
  #left = 0

  /** Whether a line may go. */
  admit(): boolean {
    const now = performance.now()
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#time) * RATE) / 1000)
    this.#time = now
    if (this.#tokens < 1) {
      this.#left++
      return false
    }
    this.#tokens--
    return true
  }

  /** Lines left out since the last time. */
  takeLeft(): number {
    const left = this.#left
    this.#left = 0
    return left
  }
}
