/**
 * The buffers of one queue, all of one length, by number. What a list needs of each is looked up once, when it is made:
 * nothing on the way of a byte.
 */

import type { DmaBuffer, DmaPool } from '../mem/dma-pool.ts'
import type { Iovec } from '../mem/iovec.ts'

export class Buffers {
  /** Bytes of each. */
  readonly len: number
  readonly #pool: DmaPool
  readonly #all: DmaBuffer[] = []
  /** Where the device sees them, and where this process does; 0 where it has no addresses. */
  readonly #device: Float64Array
  readonly #host: Float64Array

  /** `most`: so many at a time. */
  constructor(pool: DmaPool, most: number, len: number) {
    this.len = len
    this.#pool = pool
    this.#device = new Float64Array(most)
    this.#host = new Float64Array(most)
  }

  get count(): number {
    return this.#all.length
  }

  /** Makes one more; returns its number. */
  make(): number {
    const buffer = this.#pool.allocate(this.len)
    const number = this.#all.push(buffer) - 1
    const region = this.#pool.memory.contiguous(buffer.address, this.len, true)
    this.#device[number] = buffer.address
    this.#host[number] = region.address === 0 ? 0 : region.address + buffer.address - region.base
    return number
  }

  /** The address under which the device knows it. */
  address(number: number): number {
    return this.#device[number]!
  }

  /** Appends bytes `from` … `to` of one to a list that is not full. */
  append(list: Iovec, number: number, from: number, to: number): void {
    const host = this.#host[number]!
    list.push(this.#all[number]!.bytes, from, to - from, host === 0 ? 0 : host + from)
  }

  /** Gives all of them back; the device has been reset. */
  release(): void {
    for (const buffer of this.#all) this.#pool.free(buffer)
    this.#all.length = 0
  }
}
