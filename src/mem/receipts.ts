/**
 * Whether a system call that moved bytes has happened: the one thing that a process which is killed cannot write down.
 *
 * The kernel writes it for us. sendmmsg(2) and recvmmsg(2) store the number of bytes into the caller's own `msg_len`
 * before they return, and a kill waits until they do. Where that field lies in a shared ledger, the successor reads how
 * many bytes have moved, or that none have. `base` says where in the ring they belong: a note whose position has
 * passed is an old one. It is taken back as soon as its bytes are in the position, and when its queue is disabled: the
 * next ring of that queue has the same positions. Armed by ffi/rw.ts, read by the device when it resumes.
 */

/** struct mmsghdr of every LP64 Linux, in words: iov at 16, iovlen at 24, flags at 48, msg_len at 56 bytes. */
export const MMSG = { iov: 4, iovLen: 6, control: 8, controlLen: 10, len: 14, words: 16 } as const
/** `len` of a call that has not come back. */
export const NO_RECEIPT = 0xffffffff
const NONE: number = NO_RECEIPT
/** The same of a call that writes no receipt: it may or may not have happened. */
const UNKNOWN = 0xfffffffe
const QUEUE = MMSG.words
const OFFERED = MMSG.words + 1

export interface Movement {
  queue: number
  /** Bytes that moved; where that is not known, undefined. */
  bytes: number | undefined
  /** Bytes that could have. */
  offered: number
}

export class Receipts {
  static readonly LEN: number = MMSG.words * 4 + 16
  /** The header for the kernel, and its words. */
  readonly address: number
  readonly words: Uint32Array
  readonly #base: Float64Array
  readonly #positions: Float64Array

  constructor(bytes: Uint8Array, address: number, positions: Float64Array) {
    this.address = address
    this.words = new Uint32Array(bytes.buffer, bytes.byteOffset, MMSG.words + 2)
    this.#base = new Float64Array(bytes.buffer, bytes.byteOffset + MMSG.words * 4 + 8, 1)
    this.#positions = positions
  }

  /** Before the call. The order counts: without `len` the rest says nothing. */
  arm(queue: number, offered: number): void {
    this.words[MMSG.len] = NONE
    this.words[QUEUE] = queue
    this.words[OFFERED] = offered
    this.#base[0] = this.#positions[queue]!
  }

  /** Before a call that writes no receipt, after `arm`; `most` bytes can move. And after it. */
  unknown(most: number): void {
    this.words[OFFERED] = Math.min(most, this.words[OFFERED]!)
    this.words[MMSG.len] = UNKNOWN
  }
  known(bytes: number): void {
    this.words[MMSG.len] = bytes > 0 ? bytes : NONE
  }

  /** What the last call has moved is in its queue's position; or, if it was of `queue`, is nobody's any more. */
  settle(queue: number): void {
    if (this.words[QUEUE] === queue) this.words[MMSG.len] = NONE
  }

  get len(): number {
    return this.words[MMSG.len]!
  }

  /** What moved and was not put into its queue's position any more. */
  unrecorded(): Movement | undefined {
    const [bytes, queue, offered] = [this.len, this.words[QUEUE]!, this.words[OFFERED]!]
    if (bytes === NONE || bytes === 0 || queue >= this.#positions.length) return undefined
    if (this.#positions[queue] !== this.#base[0]) return undefined
    return { queue, bytes: bytes === UNKNOWN ? undefined : Math.min(bytes, offered), offered }
  }
}
