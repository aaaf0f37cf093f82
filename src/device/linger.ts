/**
 * Whether to look at a queue again in a moment, or to ask the driver to notify us of what comes next.
 *
 * A driver that sends one buffer after the other notifies us as soon as we have asked for it, and each notification is
 * an exit of the guest, a message, a task switch: more than the buffer itself. If we look again by ourselves a little
 * later, there is a handful: one system call for all, one waking of the peer, and the guest goes on undisturbed. So that
 * is done while it pays. It does not pay where too little has come, nor where the ring has nearly filled meanwhile, and
 * then it is tried less and less often. After a lone message, or a few, the driver is asked at once. Used by transmit.ts.
 */

import { BackOff } from './back-off.ts'

/** What is worth a look of its own: so many chains, or a few with so many bytes. One may be half of a dialogue. */
const CHAINS_MIN = 4
const CHAINS_FEW = 2
const LEN_MIN = 32 << 10
/** Part of the ring that may be full when we come back. */
const FULL_PART = 2

export class Linger {
  readonly #trials = new BackOff()
  #waited = false
  #peak = 0
  #chains = 0
  #bytes = 0
  #first = 0

  /** We come and look. */
  begin(): void {
    this.#chains = this.#bytes = 0
  }

  /** `chains` of `bytes` were found, of so many that are `available`. */
  found(chains: number, bytes: number, available: number): void {
    if (this.#chains === 0) this.#first = available
    this.#chains += chains
    this.#bytes += bytes
  }

  /** All is taken. Whether to come back in a moment, which has to be done then. */
  again({ size, peak }: { size: number; peak: number }): boolean {
    const enough = this.#chains >= CHAINS_MIN || (this.#chains >= CHAINS_FEW && this.#bytes >= LEN_MIN)
    // The driver must not have to wait for us. It did if all was there that it has.
    const late = this.#first * FULL_PART > size || this.#first === this.#peak
    this.#peak = peak
    if (this.#waited) this.#trials.tried(enough && !late)
    this.#waited = enough && this.#trials.due()
    return this.#waited
  }
}
