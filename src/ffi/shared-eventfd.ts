/**
 * Eventfds of which somebody else has the same open file: the interrupts of a VMM. Called by the interrupt lines of an
 * attachment.
 *
 * O_NONBLOCK belongs to the open file: the other side can take it off, fill the counter, and write(2) would wait for
 * ever. So the kernel adds to the counter itself: it does so at the end of an asynchronous request (aio_resfd of
 * io_submit(2)), without waiting, and a full counter stays full. The request is a poll of the same eventfd for
 * anything, which is over at once. Reading with RWF_NOWAIT does not look at O_NONBLOCK either.
 */

import { readlinkSync } from 'node:fs'
import { signalEventfd } from './eventfd.ts'
import { addressOf, declare, EINTR, errno, viewNative } from './libc.ts'
import { setNonBlocking, waitWritable } from './rw.ts'

const setupCall = declare('int64_t syscall(int64_t n, int64_t events, uintptr_t context)')
const submitCall = declare('int64_t syscall(int64_t n, uintptr_t context, int64_t count, uintptr_t iocbs)')
const readCall = declare(
  'int64_t syscall(int64_t n, int64_t fd, uintptr_t iov, int64_t count, int64_t low, int64_t high, int64_t flags)',
)
const fcntlFunction = declare('int fcntl(int fd, int command, int64_t argument)')

const ARM = process.arch === 'arm64'
const SYS_IO_SETUP = ARM ? 0 : 206
const SYS_IO_SUBMIT = ARM ? 2 : 209
const SYS_PREADV2 = ARM ? 286 : 327
const RWF_NOWAIT = 8
const F_GETFL = 3
/** Requests that may be under way; each is over before its call returns. */
const EVENTS = 8
/** struct aio_ring, at the address that io_setup gives: id, nr, head, tail, magic, in 32-bit words. */
const RING = { head: 2, tail: 3, magic: 4, len: 32 } as const
const RING_MAGIC = 0xa10a10a1
/** struct iocb in 32-bit words. */
const IOCB = { opcode: 4, fd: 5, buf: 6, flags: 14, resfd: 15, words: 16 } as const
const IOCB_CMD_POLL = 5
const IOCB_FLAG_RESFD = 1
const POLLIN_POLLOUT = 5

/** One request that is used again and again, and the ring in which the kernel notes that it is over. */
class Requests {
  // Bigger than needed: small ones lie inside V8's heap, which moves.
  readonly #words = new Uint32Array(new ArrayBuffer(256))
  readonly #ring: Uint32Array
  readonly #context: number
  readonly #list: number

  constructor() {
    const own = Number(addressOf(new Uint8Array(this.#words.buffer)))
    if (setupCall(SYS_IO_SETUP, EVENTS, own) !== 0) throw new Error('no asynchronous requests')
    this.#context = this.#words[0]! + this.#words[1]! * 2 ** 32
    this.#ring = new Uint32Array(viewNative(BigInt(this.#context), RING.len))
    if (this.#ring[RING.magic] !== RING_MAGIC) throw new Error('requests without a ring')
    this.#words.fill(0)
    this.#words[IOCB.opcode] = IOCB_CMD_POLL
    this.#words[IOCB.buf] = POLLIN_POLLOUT
    this.#words[IOCB.flags] = IOCB_FLAG_RESFD
    this.#words[IOCB.words] = own
    this.#words[IOCB.words + 1] = Math.floor(own / 2 ** 32)
    this.#list = own + 4 * IOCB.words
  }

  /** False where the kernel refuses. */
  signal(fd: number): boolean {
    this.#words[IOCB.fd] = fd
    this.#words[IOCB.resfd] = fd
    const done = submitCall(SYS_IO_SUBMIT, this.#context, 1, this.#list) === 1
    // What is over has been seen.
    this.#ring[RING.head] = this.#ring[RING.tail]!
    return done
  }
}

/** null: this kernel, or this sandbox, has none. */
let requests: Requests | null | undefined

function makeRequests(): Requests | null {
  try {
    return new Requests()
  } catch {
    return null
  }
}

/** Adds 1, or leaves a full counter as it is. Never waits, whatever the other side does with the eventfd. */
export function signalShared(fd: number): void {
  requests ??= makeRequests()
  if (requests?.signal(fd)) return
  // Without requests: a full counter is seen before, unless it is filled in this very moment.
  if (waitWritable(fd, 0)) signalEventfd(fd)
}

const block = new Uint8Array(new ArrayBuffer(256))
const view = new DataView(block.buffer)
const IOV_AT = 64
const blockAddress = Number(addressOf(block))
view.setBigUint64(IOV_AT, BigInt(blockAddress), true)
view.setBigUint64(IOV_AT + 8, 8n, true)

/** Reads and clears the counter; 0 where nothing was there. Never waits. */
export function drainShared(fd: number): number {
  for (;;) {
    if (readCall(SYS_PREADV2, fd, blockAddress + IOV_AT, 1, -1, -1, RWF_NOWAIT) === 8)
      return Number(view.getBigUint64(0, true))
    if (errno() !== EINTR) return 0
  }
}

/**
 * Takes over a descriptor that somebody else sent as an eventfd: true when it is one. Anything else could make a call
 * wait: a pipe, a socket.
 */
export function adoptEventfd(fd: number): boolean {
  try {
    if (readlinkSync(`/proc/self/fd/${fd}`) !== 'anon_inode:[eventfd]') return false
  } catch {
    // No /proc in this sandbox: a VM without interrupts would be worse than believing the VMM.
  }
  if (fcntlFunction(fd, F_GETFL, 0) === -1) return false
  setNonBlocking(fd)
  return true
}
