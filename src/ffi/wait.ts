/**
 * Waits at a few file descriptors without the event loop: poll(2), one call and nothing allocated. Called by
 * chardev/cuse/busy-loop.ts.
 */

import { addressOf, declare } from './libc.ts'

const pollFunction = declare('int poll(uintptr_t fds, unsigned long count, int timeout)')
const POLLIN = 1

/** A struct pollfd[]: the fd, then events and revents in one word. */
export class WaitSet {
  readonly #words: Int32Array
  readonly #address: number

  constructor(max: number) {
    // Of fewer than 64 bytes it would lie in V8's heap.
    this.#words = new Int32Array(Math.max(16, max * 2))
    this.#address = Number(addressOf(new Uint8Array(this.#words.buffer)))
  }

  set(index: number, fd: number): void {
    this.#words[index * 2] = fd
  }

  /** Until one of the first `count` has something to read, or `ms` have passed, or a signal came; how many have. */
  wait(count: number, ms: number): number {
    for (let i = 0; i < count; i++) this.#words[i * 2 + 1] = POLLIN
    return pollFunction(this.#address, count, ms)
  }

  /** Whether that one had something to read, or an error. */
  ready(index: number): boolean {
    return this.#words[index * 2 + 1]! >>> 16 !== 0
  }
}
