/**
 * readv and writev between a scatter/gather list and a file descriptor: one system call, no copy where the memory has
 * an address, no allocation ever. Called by the chardevs for every burst of bytes.
 *
 * Segments without an address (plain buffers, emulators) go through a kept bounce buffer; what does not fit into it is
 * simply not moved by this call, as in any short write.
 */

import { GONE, WOULD_BLOCK } from '../chardev/chardev.ts'
import { IOVEC_MAX, type Iovec } from '../mem/iovec.ts'
import type { Receipts } from '../mem/receipts.ts'
import { addressOf, check, closeFd, declare, EAGAIN, EINTR, ENOTSOCK, errno } from './libc.ts'
import { recvmmsg, sendmmsg, setIov } from './mmsg.ts'

const BOUNCE_SIZE = 256 * 1024

// Addresses as integers: a double holds every user address, and koffi takes it faster than an array.
const writevFunction = declare('int64_t writev(int fd, uintptr_t iov, int count)')
const readvFunction = declare('int64_t readv(int fd, uintptr_t iov, int count)')
const readFunction = declare('int64_t read(int fd, uintptr_t buffer, size_t len)')

// Backing stores of typed arrays this big lie outside V8's heap and never move.
const bounce = new Uint8Array(BOUNCE_SIZE)
const bounceAddress = Number(addressOf(bounce))
/** struct iovec[IOVEC_MAX]: base low, base high, len low, len high. */
const iov = new Uint32Array(IOVEC_MAX * 4)
const iovAddress = Number(addressOf(new Uint8Array(iov.buffer)))

let lastError = 0

/** errno of the last call here that returned GONE; 0 when that was an end of file. */
export function goneErrno(): number {
  return lastError
}

/** Fills `iov` from the list and returns how many entries; fewer than the list has when the bounce buffer is full. */
function fill(list: Iovec, copy: boolean): number {
  let bounced = 0
  let entries = 0
  for (let i = 0; i < list.count; i++) {
    let address = list.address[i]!
    let len = list.len[i]!
    if (address === 0) {
      if (bounced === BOUNCE_SIZE) break
      const offset = list.offset[i]!
      len = Math.min(len, BOUNCE_SIZE - bounced)
      if (copy) bounce.set(list.bytes[i]!.subarray(offset, offset + len), bounced)
      address = bounceAddress + bounced
      bounced += len
    }
    const at = i * 4
    iov[at] = address // a store into Uint32Array keeps the low 32 bits
    iov[at + 1] = Math.floor(address / 2 ** 32)
    iov[at + 2] = len
    iov[at + 3] = 0
    entries++
    // A segment that was cut short ends the call, or the bytes behind it would move up.
    if (len < list.len[i]!) break
  }
  return entries
}

/** Brings bytes that were read into the bounce buffer to where they belong. */
function unbounce(list: Iovec, done: number): void {
  let bounced = 0
  for (let i = 0; i < list.count && done > 0; i++) {
    const len = Math.min(list.len[i]!, done)
    if (list.address[i] === 0) {
      list.bytes[i]!.set(bounce.subarray(bounced, bounced + len), list.offset[i])
      bounced += len
    }
    done -= len
  }
}

/** Writes from the list; returns the bytes taken, WOULD_BLOCK, or GONE (the reason in `goneErrno`). */
export function writev(fd: number, list: Iovec): number {
  if (list.total === 0) return 0
  const entries = fill(list, true)
  for (;;) {
    const done = list.receipts
      ? withReceipt(list.receipts, list, fd, entries, sendmmsg, writevFunction)
      : writevFunction(fd, iovAddress, entries)
    if (done >= 0) return done
    const error = errno()
    if (error === EAGAIN) return WOULD_BLOCK
    if (error === EINTR) continue
    lastError = error
    return GONE
  }
}

type Call = (fd: number, address: number) => number

/** The same by a call whose count the kernel writes into the receipts; what is no socket has no such call. */
function withReceipt(
  receipts: Receipts,
  list: Iovec,
  fd: number,
  entries: number,
  call: Call,
  other: typeof writevFunction,
): number {
  setIov(receipts.words, iovAddress, entries)
  receipts.arm(list.queue, list.total)
  if (call(fd, receipts.address) === 1) return receipts.len
  if (errno() !== ENOTSOCK) return -1
  // More may come between the question and the call: no more is read than what would be counted as lost.
  const most = call === recvmmsg ? unread(fd) : 0
  receipts.unknown(most || Infinity)
  const done = other(fd, iovAddress, most > 0 ? cut(entries, most) : entries)
  receipts.known(done)
  return done
}

/** Cuts what `fill` has made to `most` bytes; returns how many entries are left. */
function cut(entries: number, most: number): number {
  for (let i = 0; i < entries; i++) {
    const len = iov[i * 4 + 2]!
    if (most <= len) {
      iov[i * 4 + 2] = most
      return i + 1
    }
    most -= len
  }
  return entries
}

/** Fills the list from its start; returns the bytes, WOULD_BLOCK, or GONE: end of file or an error. */
export function readv(fd: number, list: Iovec): number {
  if (list.total === 0) return 0
  const entries = fill(list, false)
  for (;;) {
    const done = list.receipts
      ? withReceipt(list.receipts, list, fd, entries, recvmmsg, readvFunction)
      : readvFunction(fd, iovAddress, entries)
    if (done > 0) {
      unbounce(list, done)
      return done
    }
    const error = done === 0 ? 0 : errno()
    if (error === EAGAIN) return WOULD_BLOCK
    if (error === EINTR) continue
    lastError = error
    return GONE
  }
}

/** Reads and forgets, at most `max` bytes; returns how many. `goneErrno` is not touched. */
export function skim(fd: number, max: number): number {
  let sum = 0
  while (sum < max) {
    const done = readFunction(fd, bounceAddress, Math.min(BOUNCE_SIZE, max - sum))
    if (done > 0) sum += done
    else if (done === 0 || errno() !== EINTR) break
  }
  return sum
}

const pollFunction = declare('int poll(void *fds, unsigned long count, int timeout)')
const pollfd = new Uint8Array(8)
const pollView = new DataView(pollfd.buffer)
const POLLIN = 0x1
const POLLOUT = 0x4
const POLLERR = 0x8
const POLLHUP = 0x10

function pollNow(fd: number, events: number): number {
  pollView.setInt32(0, fd, true)
  pollView.setInt16(4, events, true)
  for (;;) {
    pollView.setInt16(6, 0, true)
    const result = pollFunction(pollfd, 1, 0)
    if (result >= 0 || errno() !== EINTR) return result > 0 ? pollView.getInt16(6, true) : 0
  }
}

/** Whether the far end of a socket, pipe or pty is gone in both directions; bytes may still be left to read. */
export function hungUp(fd: number): boolean {
  return (pollNow(fd, 0) & (POLLERR | POLLHUP)) !== 0
}

/**
 * Waits until a read would find something, or an end; false when it did not within `ms`. Holds the whole process up.
 */
export function waitReadable(fd: number, ms: number): boolean {
  return waitFor(fd, POLLIN, ms)
}

/** The same until a write would find room. */
export function waitWritable(fd: number, ms: number): boolean {
  return waitFor(fd, POLLOUT, ms)
}

function waitFor(fd: number, events: number, ms: number): boolean {
  const end = performance.now() + ms
  for (;;) {
    pollView.setInt32(0, fd, true)
    pollView.setInt16(4, events, true)
    const result = pollFunction(pollfd, 1, Math.max(0, Math.ceil(end - performance.now())))
    if (result >= 0) return result > 0
    if (errno() !== EINTR) return false
  }
}

/** Whether a read, or an accept, would find something now. */
export function readableNow(fd: number): boolean {
  return (pollNow(fd, POLLIN) & POLLIN) !== 0
}

const ioctlFunction = declare('int ioctl(int fd, unsigned long request, void *argument)')
const FIONREAD = 0x541b
const count = new Uint8Array(4)
const countView = new DataView(count.buffer)

/** Bytes that can be read at once (FIONREAD); 0 where the fd cannot tell. */
export function unread(fd: number): number {
  return ioctlFunction(fd, FIONREAD, count) === 0 ? countView.getInt32(0, true) : 0
}

const fcntlFunction = declare('int fcntl(int fd, int command, int64_t argument)')
const F_GETFL = 3
const F_SETFL = 4
const O_NONBLOCK = 0o4000

/** Makes reads and writes return at once; says whether they did not before. Shared by all copies of the fd. */
export function setNonBlocking(fd: number, on = true): boolean {
  const flags = fcntlFunction(fd, F_GETFL, 0)
  const wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK
  if (flags === -1 || wanted === flags) return false
  return fcntlFunction(fd, F_SETFL, wanted) === 0
}

const epollCreateFunction = declare('int epoll_create1(int flags)')
const epollCtlFunction = declare('int epoll_ctl(int epfd, int op, int fd, void *event)')
const EPOLL_CLOEXEC = 0o2000000
const EPOLL_CTL_ADD = 1

/**
 * Whether the event loop can watch this fd. Regular files, directories and /dev/null it cannot: they are always ready.
 */
export function pollable(fd: number): boolean {
  const epoll = check(epollCreateFunction(EPOLL_CLOEXEC), 'epoll_create1', 'event loop')
  const result = epollCtlFunction(epoll, EPOLL_CTL_ADD, fd, new Uint8Array(12))
  closeFd(epoll)
  return result === 0
}
