/** A chardev that lives in the test: what the guest sends piles up in `received`, what the test sends waits in `input`. */

import { WOULD_BLOCK, type Chardev, type ChardevEnd } from '../../src/chardev/chardev.ts'
import type { Iovec } from '../../src/mem/iovec.ts'

export class MemoryChardev implements Chardev {
  readonly label = 'memory'
  readonly place = undefined
  connected: boolean
  /** Bytes it takes before it says stop; raise it and call `end.writable()`. */
  room: number = Infinity
  readonly received: Uint8Array[] = []
  reading = false
  closed = false
  #input: Uint8Array[] = []
  readonly #end: ChardevEnd

  constructor(end: ChardevEnd, connected = true) {
    this.#end = end
    this.connected = connected
  }

  get text(): string {
    return Buffer.concat(this.received).toString('latin1')
  }
  get waiting(): number {
    return this.#input.reduce((sum, bytes) => sum + bytes.length, 0)
  }

  send(bytes: Uint8Array | string): void {
    this.#input.push(typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes)
    if (this.reading) this.#end.readable()
  }

  setRoom(room: number): void {
    this.room = room
    this.#end.writable()
  }

  setConnected(connected: boolean): void {
    this.connected = connected
    this.#end.setConnected(connected)
  }

  writev(list: Iovec): number {
    const bytes = new Uint8Array(Math.min(list.total, this.room))
    list.copyTo(bytes)
    this.room -= bytes.length
    if (bytes.length > 0) this.received.push(bytes)
    return bytes.length === 0 ? WOULD_BLOCK : bytes.length
  }

  readv(list: Iovec): number {
    const all = Buffer.concat(this.#input)
    const taken = list.copyFrom(all)
    this.#input = taken < all.length ? [all.subarray(taken)] : []
    return taken
  }

  setReading(on: boolean): void {
    this.reading = on
    if (on && this.#input.length > 0) setImmediate(() => this.reading && this.#end.readable())
  }

  discardInput(): number {
    const len = this.waiting
    this.#input = []
    return len
  }

  disconnect(): void {
    this.setConnected(false)
  }

  close(): void {
    this.closed = true
  }
}
