/**
 * A port's chardev where a program of this process is the reader and writer: at most one stream at a time, which comes
 * and goes while the port stays. Made by port.ts.
 */

import { GONE, WOULD_BLOCK, type Chardev, type ChardevEnd } from '../chardev/chardev.ts'
import type { Iovec } from '../mem/iovec.ts'

/** What a stream does for its port. Called from the driver: no code of the program may run inside these two. */
export interface StreamEnd {
  /** Takes bytes of the host; returns how many. After fewer than all: `writable` later. */
  fromHost(list: Iovec): number
  /** Gives bytes for the host; returns how many. After none: `readable` later. */
  toHost(list: Iovec): number
}

export class StreamChardev implements Chardev {
  readonly label = 'stream'
  readonly place = undefined
  readonly #end: ChardevEnd
  #stream: StreamEnd | undefined
  #reading = false

  constructor(end: ChardevEnd) {
    this.#end = end
  }

  get connected(): boolean {
    return this.#stream !== undefined
  }

  /** The program opens the port; false where it has it open already. */
  open(stream: StreamEnd): boolean {
    if (this.#stream) return false
    this.#stream = stream
    this.#end.setConnected(true)
    return true
  }

  release(stream: StreamEnd): void {
    if (this.#stream !== stream) return
    this.#stream = undefined
    this.#end.setConnected(false)
  }

  /** The stream has bytes for the host. */
  readable(): void {
    if (this.#reading) this.#end.readable()
  }

  /** The stream has room again. */
  writable(): void {
    this.#end.writable()
  }

  writev(list: Iovec): number {
    return this.#stream?.fromHost(list) ?? GONE
  }

  readv(list: Iovec): number {
    return this.#stream?.toHost(list) ?? WOULD_BLOCK
  }

  setReading(on: boolean): void {
    this.#reading = on
  }

  /** What a program writes stays with it until the port takes it. */
  discardInput(): number {
    return 0
  }

  disconnect(): void {}

  close(): void {
    this.#stream = undefined
  }
}
