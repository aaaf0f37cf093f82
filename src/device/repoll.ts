/**
 * Looks once more at queues whose driver was asked to notify, a moment after that. Publishing a chain and looking
 * whether to notify need a full fence between them (§2.7.13.4.1), and not every driver's is one: under TCG with one
 * virtual processor QEMU translates `lock`-prefixed instructions without it, so that a chain is there and its
 * notification never comes. The moment is far longer than a store stays unseen. One timer for a device, which runs only
 * while queues have been armed since it was set: an idle device costs nothing, a busy one a waking each millisecond.
 * Used by queues.ts.
 */

/** A lost notification delays its chain by so much. */
const REPOLL_MS = 1

const NOT = 0
/** Armed before the timer was set, or since. */
const DUE = 1
const AGAIN = 2

export class Repoll {
  readonly #state: Uint8Array
  readonly #after: (ms: number, fn: () => void) => unknown
  /** Whether there is something; then it is served. */
  readonly #look: (queue: number) => boolean
  #armed: number[] = []
  #timer = false

  constructor(queues: number, after: (ms: number, fn: () => void) => unknown, look: (queue: number) => boolean) {
    this.#state = new Uint8Array(queues)
    this.#after = after
    this.#look = look
  }

  /** The driver of this queue was asked to notify. */
  armed(queue: number): void {
    if (this.#state[queue] === NOT) this.#armed.push(queue)
    this.#state[queue] = this.#timer ? AGAIN : DUE
    if (!this.#timer) this.#start()
  }

  #start(): void {
    this.#timer = true
    this.#after(REPOLL_MS, () => this.#poll())
  }

  #poll(): void {
    const armed = this.#armed
    this.#armed = []
    for (const queue of armed) {
      const again = this.#state[queue] === AGAIN
      this.#state[queue] = NOT
      // The look comes too early for one that was armed after the timer was set; not for one that is served now.
      if (this.#look(queue) || !again || this.#state[queue] !== NOT) continue
      this.#armed.push(queue)
      this.#state[queue] = DUE
    }
    this.#timer = false
    if (this.#armed.length > 0) this.#start()
  }
}
