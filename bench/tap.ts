/** A program in the guest that costs nothing: its bytes are whatever lies in the buffers, what it gets it forgets. */
import type { Chardev, ChardevEnd } from '../src/chardev/chardev.ts'
import type { Iovec } from '../src/mem/iovec.ts'

export class Tap implements Chardev {
  readonly label = 'tap'
  readonly connected = true
  readonly place = undefined
  readonly #end: ChardevEnd
  /** Bytes to send, and how many in one write. */
  #left = 0
  #size = 0
  #expected = 0
  #first = 0
  #done: ((ms: number) => void) | undefined

  constructor(end: ChardevEnd) {
    this.#end = end
  }

  /** Writes `bytes` in pieces of `size`. */
  send(bytes: number, size: number): void {
    this.#left = bytes
    this.#size = size
    this.#end.readable()
  }

  /** Until `bytes` have come; milliseconds from the first to the last. */
  receive(bytes: number): Promise<number> {
    this.#expected = bytes
    this.#first = 0
    return new Promise((resolve) => (this.#done = resolve))
  }

  writev(list: Iovec): number {
    if (this.#first === 0) this.#first = performance.now()
    this.#expected -= list.total
    if (this.#expected <= 0) {
      this.#done?.(performance.now() - this.#first)
      this.#done = undefined
    }
    return list.total
  }

  readv(list: Iovec): number {
    const len = Math.min(this.#left, this.#size, list.total)
    this.#left -= len
    return len
  }

  setReading(on: boolean): void {
    if (on && this.#left > 0) setImmediate(() => this.#end.readable())
  }

  discardInput(): number {
    return 0
  }

  disconnect(): void {}

  close(): void {}
}
