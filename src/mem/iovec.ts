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

  /** Copies the first bytes of the list, at most `target.length`, into `target`; returns how many. */
  copyTo(target: Uint8Array): number {
    let done = 0
    for (let i = 0; i < this.count && done < target.length; i++) {
      const offset = this.offset[i]!
      const len = Math.min(this.len[i]!, target.length - done)
      target.set(this.bytes[i]!.subarray(offset, offset + len), done)
      done += len
    }
    return done
  }

  /** Copies `source` to the start of the list as far as it fits; returns how many bytes. */
  copyFrom(source: Uint8Array): number {
    let done = 0
    for (let i = 0; i < this.count && done < source.length; i++) {
      const len = Math.min(this.len[i]!, source.length - done)
      this.bytes[i]!.set(source.subarray(done, done + len), this.offset[i])
      done += len
    }
    return done
  }
}

const NOTHING = new Uint8Array(0)
