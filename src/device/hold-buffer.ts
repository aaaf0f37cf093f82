/**
 * A bounded byte ring for ports that must never make the guest wait: consoles, and the drop policies.
 *
 * Memory is taken when the first byte has to wait, not before: an idle port costs nothing.
 */

import type { Iovec } from '../mem/iovec.ts'

export class HoldBuffer {
  readonly capacity: number
  #bytes: Uint8Array | undefined
  #start = 0
  #len = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  get len(): number {
    return this.#len
  }

  /**
   * Takes the bytes of `list` after its first `skip`. What does not fit is dropped: the oldest bytes held or the newest
   * offered. Returns the number dropped.
   */
  take(list: Iovec, skip: number, drop: 'oldest' | 'newest'): number {
    let dropped = 0
    // Only what can stay is copied.
    const over = list.total - skip - this.capacity
    if (drop === 'oldest' && over > 0) {
      dropped = this.clear() + over
      skip += over
    }
    for (let i = 0; i < list.count; i++) {
      const len = list.len[i]!
      if (skip >= len) {
        skip -= len
        continue
      }
      const from = list.offset[i]! + skip
      dropped += this.#append(list.bytes[i]!.subarray(from, from + len - skip), drop)
      skip = 0
    }
    return dropped
  }

  #append(bytes: Uint8Array, drop: 'oldest' | 'newest'): number {
    const room = this.capacity - this.#len
    let dropped = 0
    if (bytes.length > room) {
      dropped = bytes.length - room
      if (drop === 'newest') bytes = bytes.subarray(0, room)
      else if (bytes.length >= this.capacity) {
        bytes = bytes.subarray(bytes.length - this.capacity)
        this.#start = 0
        this.#len = 0
      } else this.consume(dropped)
    }
    if (bytes.length === 0) return dropped
    this.#bytes ??= new Uint8Array(this.capacity)
    const at = (this.#start + this.#len) % this.capacity
    const first = Math.min(bytes.length, this.capacity - at)
    this.#bytes.set(bytes.subarray(0, first), at)
    this.#bytes.set(bytes.subarray(first), 0)
    this.#len += bytes.length
    return dropped
  }

  /** Puts what is held, oldest first, into an empty list. */
  lend(list: Iovec): void {
    list.clear()
    if (this.#len === 0 || !this.#bytes) return
    const first = Math.min(this.#len, this.capacity - this.#start)
    list.push(this.#bytes, this.#start, first, 0)
    if (first < this.#len) list.push(this.#bytes, 0, this.#len - first, 0)
  }

  /** Forgets the oldest `bytes` bytes. */
  consume(bytes: number): void {
    this.#len -= bytes
    this.#start = this.#len === 0 ? 0 : (this.#start + bytes) % this.capacity
  }

  /** Forgets everything; returns how many bytes. */
  clear(): number {
    const len = this.#len
    this.#start = 0
    this.#len = 0
    return len
  }
}
