/**
 * The file descriptor of a CUSE device: requests in, replies out, one system call each and nothing allocated. Called
 * by chardev/cuse/channel.ts.
 */

import { constants, openSync } from 'node:fs'
import { addressOf, declare, EAGAIN, EINTR, ENOENT, errno } from './libc.ts'

const readFunction = declare('int64_t read(int fd, uintptr_t data, size_t len)')
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

/** Reads one request: its length, 0 when there is none now, -1 when the device is gone. */
export function readRequest(fd: number, into: FixedBuffer): number {
  for (;;) {
    const len = readFunction(fd, into.address, into.bytes.length)
    if (len > 0) return len
    const error = errno()
    if (error === EAGAIN) return 0
    // ENOENT: the request was given up between being announced and being read.
    if (error !== EINTR && error !== ENOENT) return -1
  }
}

/** struct iovec[]: base low, base high, len low, len high. */
const IOV_MAX = 1024
const iov = new Uint32Array(IOV_MAX * 4)
const iovAddress = Number(addressOf(new Uint8Array(iov.buffer)))
let parts = 0

/** Starts a reply; its parts follow, then `sendReply`. */
export function beginReply(): void {
  parts = 0
}

export function addPart(address: number, len: number): void {
  const at = parts++ * 4
  iov[at] = address // a store into Uint32Array keeps the low 32 bits
  iov[at + 1] = Math.floor(address / 2 ** 32)
  iov[at + 2] = len
  iov[at + 3] = 0
}

export function roomForParts(): boolean {
  return parts < IOV_MAX
}

/** Sends the parts as one message: false when the kernel does not want it (the request was given up). */
export function sendReply(fd: number): boolean {
  for (;;) {
    if (writevFunction(fd, iovAddress, parts) >= 0) return true
    if (errno() !== EINTR) return false
  }
}
