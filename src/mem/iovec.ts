/**
 * A scatter/gather list: the segments of one or more descriptor chains, in order.
 *
 * Filled by the ring, read by whoever moves the bytes: in place through `bytes`, or by a system call through `address`.
 * Fixed arrays and a count, reused for ever: nothing is allocated on the data path. Segments are lent: they are valid
 * until the ring is touched again, and never across an `await`.
 */

import type { Receipts } from './receipts.ts'

/** Segments one list can hold; the kernel takes no more in one readv/writev (UIO_MAXIOV). */
export const IOVEC_MAX = 1024

export class Iovec {
  /** The window of memory that segment i lies in. */
  readonly bytes: Uint8Array[] = []
  /** Where in `bytes[i]` it starts. */
  readonly offset: number[] = []
  readonly len: number[] = []
  /** Host virtual address of the segment's first byte, 0 where the memory has none (plain buffers, emulators). */
  readonly address: number[] = []
  count = 0
  /** Sum of all `len`, bytes. */
  total = 0
  /** Descriptors that were looked at to fill it, whatever came of them: what it has cost. */
  looked = 0
  /** Where who moves the bytes notes it, and the queue that they are of; undefined where nobody wants to know. */
  receipts: Receipts | undefined
  queue = 0

  constructor() {
    for (let i = 0; i < IOVEC_MAX; i++) {
      this.bytes.push(NOTHING)
      this.offset.push(0)
      this.len.push(0)
      this.address.push(0)
    }
  }

  clear(): void {
    this.count = 0
    this.total = 0
    this.looked = 0
    this.receipts = undefined
  }

  get full(): boolean {
    return this.count === IOVEC_MAX
  }

  /** Appends a segment; the caller has checked `full`. */
  push(bytes: Uint8Array, offset: number, len: number, address: number): void {
    const i = this.count++
    this.bytes[i] = bytes
    this.offset[i] = offset
    this.len[i] = len
    this.address[i] = address
    this.total += len
  }

  /** Keeps the first `most` bytes. */
  cut(most: number): void {
    while (this.total > most) {
      const last = this.count - 1
      const over = this.total - most
      const part = Math.min(over, this.len[last]!)
      this.len[last]! -= part
      this.total -= part
      if (this.len[last] === 0) this.count--
    }
  }

  /** Copies bytes of the list from `skip` on, at most `target.length`, into `target`; returns how many. */
  copyTo(target: Uint8Array, skip = 0): number {
    let done = 0
    for (let i = 0; i < this.count && done < target.length; i++) {
      const left = this.len[i]! - skip
      if (left > 0) {
        const offset = this.offset[i]! + skip
        const len = Math.min(left, target.length - done)
        const bytes = this.bytes[i]!
        target.set(len === bytes.length ? bytes : bytes.subarray(offset, offset + len), done)
        done += len
        skip = 0
      } else skip = -left
    }
    return done
  }

  /** Copies `source` into the list behind its first `skip` bytes, as far as it fits; returns how many bytes. */
  copyFrom(source: Uint8Array, skip = 0): number {
    let done = 0
    for (let i = 0; i < this.count && done < source.length; i++) {
      const room = this.len[i]! - skip
      if (room > 0) {
        const len = Math.min(room, source.length - done)
        const part = len === source.length ? source : source.subarray(done, done + len)
        this.bytes[i]!.set(part, this.offset[i]! + skip)
        done += len
        skip = 0
      } else skip = -room
    }
    return done
  }
}

const NOTHING = new Uint8Array(0)
