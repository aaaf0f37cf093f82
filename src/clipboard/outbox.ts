/**
 * Messages on their way to the agent, whole and in order, no faster than the guest takes them. Bounded: what is said about
 * a selection's owner replaces what was not sent yet, and agent.ts stops reading while it is full.
 */

import type { Duplex } from 'node:stream'
import { chunks } from './wire.ts'

const FULL = 16

/** Made when its turn has come. */
type Encode = () => readonly [type: number, ...parts: Uint8Array[]]

export class Outbox {
  readonly #stream: Duplex
  readonly #room: () => void
  readonly #messages: { key: string | undefined; encode: Encode; done: () => void }[] = []
  #running = false

  /** `room` is called when it has been full and is no more. */
  constructor(stream: Duplex, room: () => void) {
    this.#stream = stream
    this.#room = room
  }

  get full(): boolean {
    return this.#messages.length >= FULL
  }

  /** Resolves when it has been written, or never will be. `key`: a message of the same key that still waits is left out. */
  send(encode: Encode, key?: string): Promise<void> {
    const at = key === undefined ? -1 : this.#messages.findIndex((message) => message.key === key)
    if (at >= 0) this.#messages.splice(at, 1)[0]!.done()
    return new Promise((done) => {
      this.#messages.push({ key, encode, done })
      if (!this.#running) void this.#run()
    })
  }

  clear(): void {
    for (const { done } of this.#messages.splice(0)) done()
  }

  async #run(): Promise<void> {
    this.#running = true
    for (;;) {
      const message = this.#messages.shift()
      if (!message) break
      if (this.#messages.length === FULL - 1) this.#room()
      for (const chunk of chunks(...message.encode()))
        if (!this.#stream.destroyed && !this.#stream.write(chunk)) await this.#drained()
      message.done()
    }
    this.#running = false
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#stream.off('drain', done).off('close', done)
        resolve()
      }
      this.#stream.on('drain', done).on('close', done)
    })
  }
}
