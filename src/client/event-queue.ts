/** Events between the socket and a loop that may be slow: bounded, with a count of what was left out. */

import type { ControlEvent } from '../daemon/protocol.ts'

const EVENTS_MAX = 1024

export class EventQueue {
  readonly #events: ControlEvent[] = []
  #lost = 0
  #ended = false
  #waiting: ((event: ControlEvent | undefined) => void) | undefined

  push(event: ControlEvent): void {
    if (this.#waiting) this.#give(event)
    else if (this.#events.length < EVENTS_MAX) this.#events.push(event)
    else this.#lost += event.event === 'lost' ? (event.count ?? 1) : 1
  }

  end(): void {
    this.#ended = true
    if (this.#waiting) this.#give(undefined)
  }

  /** Hands over the next event, or undefined after the last; returns the way to stop waiting. */
  next(resolve: (event: ControlEvent | undefined) => void): () => void {
    const event = this.#events.shift() ?? this.#takeLost()
    if (event || this.#ended) {
      resolve(event)
      return () => {}
    }
    this.#waiting = resolve
    return () => (this.#waiting = undefined)
  }

  #takeLost(): ControlEvent | undefined {
    if (this.#lost === 0) return undefined
    const count = this.#lost
    this.#lost = 0
    return { event: 'lost', count, time: Date.now() }
  }

  #give(event: ControlEvent | undefined): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.(event)
  }
}
