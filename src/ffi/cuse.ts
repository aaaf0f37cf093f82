/**
 * The file descriptor of a CUSE device: requests in, replies out, one system call each and nothing allocated. Called
 * by chardev/cuse/channel.ts.
 */

import { constants, openSync } from 'node:fs'
import { addressOf, declare, EAGAIN, EINTR, ENOENT, errno } from './libc.ts'

const readvFunction = declare('int64_t readv(int fd, uintptr_t iov, int count)')
const writevFunction = declare('int64_t writev(int fd, uintptr_t iov, int count)')

export const CUSE_NODE = '/dev/cuse'

/** Opens /dev/cuse: one open is one device. Throws what node:fs throws. */
export function openCuse(): number {
  return openSync(CUSE_NODE, constants.O_RDWR | constants.O_NONBLOCK)
}

/** Memory of a fixed place, for requests and replies. */
export interface FixedBuffer {
  readonly bytes: Uint8Array
  readonly address: number
}

export function fixedBuffer(len: number): FixedBuffer {
  // Backing stores of more than 64 bytes lie outside V8's heap.
  const bytes = new Uint8Array(new ArrayBuffer(Math.max(128, len)))
  return { bytes, address: Number(addressOf(bytes)) }
}

/** A struct iovec[] that is filled part by part: base low, base high, len low, len high. */
const PARTS_MAX = 1024

export class Parts {
  readonly #words = new Uint32Array(PARTS_MAX * 4)
  readonly #address = Number(addressOf(new Uint8Array(this.#words.buffer)))
  #count = 0

  get full(): boolean {
    return this.#count === PARTS_MAX
  }

  /** Drops the parts from the one with this number on. */
  cut(count: number): void {
    this.#count = count
  }

  add(address: number, len: number): void {
    const at = this.#count++ * 4
    // A store into Uint32Array takes a number modulo 2^32, without its fraction.
    this.#words[at] = address
    this.#words[at + 1] = address / 2 ** 32
    this.#words[at + 2] = len
  }

  /** Reads one request into the parts: its length, 0 when there is none now, -1 when the device is gone. */
  read(fd: number): number {
    for (;;) {
      const len = readvFunction(fd, this.#address, this.#count)
      if (len > 0) return len
      if (len === 0) return -1
      const error = errno()
      if (error === EAGAIN) return 0
      // ENOENT: the request was given up between being announced and being read.
      if (error !== EINTR && error !== ENOENT) return -1
    }
  }

  /** Sends the parts as one message: false when the kernel does not want it (the request was given up). */
  write(fd: number): boolean {
    for (;;) {
      if (writevFunction(fd, this.#address, this.#count) >= 0) return true
      if (errno() !== EINTR) return false
    }
  }
}
