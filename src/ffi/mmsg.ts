/**
 * sendmmsg(2) and recvmmsg(2) of one message, whose byte count the kernel writes into the caller's header: the receipts of
 * mem/receipts.ts. By number, since musl's functions are loops around sendmsg that write the count themselves.
 */

import { MMSG } from '../mem/receipts.ts'
import { addressOf, declare, EINTR, errno } from './libc.ts'

const syscall5 = declare('int64_t syscall(int64_t n, int64_t fd, uintptr_t vector, int64_t len, int64_t flags)')
const syscall6 = declare(
  'int64_t syscall(int64_t n, int64_t fd, uintptr_t vector, int64_t len, int64_t flags, uintptr_t timeout)',
)

const ARM = process.arch === 'arm64'
const SYS_SENDMMSG = ARM ? 269 : 307
const SYS_RECVMMSG = ARM ? 243 : 299
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000

/** The header at `address` says where the bytes are; 1 where it was done, -1 with errno. */
export function sendmmsg(fd: number, address: number): number {
  return syscall5(SYS_SENDMMSG, fd, address, 1, MSG_DONTWAIT | MSG_NOSIGNAL)
}

export function recvmmsg(fd: number, address: number): number {
  return syscall6(SYS_RECVMMSG, fd, address, 1, MSG_DONTWAIT, 0)
}

/** Points the header at an array of `count` iovecs. */
export function setIov(words: Uint32Array, address: number, count: number): void {
  words[MMSG.iov] = address // a store into Uint32Array keeps the low 32 bits
  words[MMSG.iov + 1] = Math.floor(address / 2 ** 32)
  words[MMSG.iovLen] = count
}

const iov = new Uint32Array(new ArrayBuffer(128), 0, 4)
const iovAddress = Number(addressOf(new Uint8Array(iov.buffer)))

/** Sends the first `len` bytes of `data`, which lies outside the garbage-collected heap; bytes taken, or -errno. */
export function sendNoted(fd: number, data: Uint8Array, len: number, words: Uint32Array, address: number): number {
  const from = Number(addressOf(data))
  iov[0] = from
  iov[1] = Math.floor(from / 2 ** 32)
  iov[2] = len
  setIov(words, iovAddress, 1)
  for (;;) {
    if (sendmmsg(fd, address) === 1) return words[MMSG.len]!
    const code = errno()
    if (code !== EINTR) return -code
  }
}
