/**
 * The Chardev of far ends that are there from the start and do not come back: stdio, fifos. One fd to read, one to write.
 */

import type { Iovec } from '../mem/iovec.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { FdEnd } from './fd-end.ts'

export interface FdPairOptions {
  label: string
  /** -1 for a direction that does not exist. */
  input: number
  output: number
  /** Closes the fds and puts back what was changed. */
  release: () => void
}

export class FdPair implements Chardev {
  readonly label: string
  readonly place: undefined
  readonly #end: FdEnd
  readonly #release: () => void
  #connected = true
  #closed = false

  constructor(port: ChardevEnd, options: FdPairOptions) {
    this.label = options.label
    this.place = undefined
    this.#release = options.release
    this.#end = new FdEnd(
      {
        readable: () => port.readable(),
        writable: () => port.writable(),
        warn: (message) => port.warn(`${this.label}: ${message}`),
        gone: () => {
          this.#connected = false
          port.setConnected(false)
        },
      },
      // The directions are independent: an input that ends says nothing about the output.
      { input: options.input, output: options.output, halfCloseMs: Infinity },
    )
  }

  get connected(): boolean {
    return this.#connected
  }

  writev(list: Iovec): number {
    return this.#end.writev(list)
  }

  readv(list: Iovec): number {
    return this.#end.readv(list)
  }

  setReading(on: boolean): void {
    this.#end.setReading(on)
  }

  discardInput(): number {
    return this.#end.discardInput()
  }

  disconnect(): void {}

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#end.close()
    this.#release()
  }
}
