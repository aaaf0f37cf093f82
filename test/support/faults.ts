/**
 * Faults of system calls, for tests: stands between src/ffi and the C library, and lets calls fail or do a part of
 * their work, as a kernel may at any time. Used by the setup of the project "faults" and by test/ffi/faults.test.ts.
 *
 * Two kinds. A passing fault is none: EINTR, EAGAIN where nothing may wait, fewer bytes than were asked for. Everything
 * has to go on as if nothing had been, so ordinary tests run with them. A lasting one is a resource that is used up
 * (EMFILE, ENOMEM, …): one certain call fails, and what is asked for may be refused, but with an error that names it.
 */

import koffi from 'koffi'
import type { NativeFunction } from '../../src/ffi/libc.ts'

const E: Readonly<Record<string, number>> = koffi.os.errno
const SYSCALLS: Readonly<Record<number, string>> = {
  ...{ 307: 'sendmmsg', 299: 'recvmmsg', 206: 'io_setup', 209: 'io_submit', 327: 'preadv2', 332: 'statx' },
  ...{ 269: 'sendmmsg', 243: 'recvmmsg', 0: 'io_setup', 2: 'io_submit', 286: 'preadv2', 291: 'statx' },
}

const PASSING: Readonly<Record<string, readonly string[]>> = {
  read: ['EINTR'],
  readv: ['EINTR', 'EAGAIN', 'short'],
  writev: ['EINTR', 'EAGAIN', 'short'],
  send: ['EINTR', 'EAGAIN', 'short'],
  recv: ['EINTR', 'EAGAIN', 'short'],
  sendmsg: ['EINTR', 'EAGAIN'],
  recvmsg: ['EINTR', 'EAGAIN', 'short'],
  sendmmsg: ['EINTR', 'EAGAIN'],
  recvmmsg: ['EINTR', 'EAGAIN'],
  accept4: ['EINTR', 'ECONNABORTED'],
  poll: ['EINTR'],
  io_submit: ['EAGAIN'],
}

const LASTING: Readonly<Record<string, readonly string[]>> = {
  socket: ['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'],
  accept4: ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOBUFS'],
  bind: ['ENOMEM'],
  listen: ['EADDRINUSE'],
  connect: ['ENOMEM'],
  eventfd: ['EMFILE', 'ENFILE', 'ENOMEM'],
  epoll_create1: ['EMFILE', 'ENFILE', 'ENOMEM'],
  timerfd_create: ['EMFILE', 'ENFILE', 'ENOMEM'],
  memfd_create: ['EMFILE', 'ENFILE', 'ENOMEM'],
  mmap: ['ENOMEM', 'EAGAIN'],
  pipe2: ['EMFILE', 'ENFILE'],
  socketpair: ['EMFILE', 'ENFILE', 'ENOMEM'],
  io_setup: ['EAGAIN', 'ENOMEM', 'ENOSYS'],
  sendmsg: ['ENOBUFS', 'ETOOMANYREFS'],
  getsockname: ['ENOBUFS'],
  statx: ['ENOMEM', 'ENOSYS'],
}

export interface Fault {
  /** Of all calls that can have one, from 1. */
  at: number
  call: string
  error: string
}

/** Numbers that look random and are the same for the same seed (mulberry32). */
function randomFrom(seed: number): (n: number) => number {
  let state = seed >>> 0
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) % n
  }
}

export class Faults {
  /** What was done to calls so far, and how many there were. */
  readonly done: Fault[] = []
  calls = 0
  #random = randomFrom(0)
  #every = 0
  #lastingAt = 0

  /** From now on one call in `every` has a passing fault; 0: none has. */
  passing(every: number, seed: number): void {
    this.#every = every
    this.#random = randomFrom(seed)
    this.#restart()
  }

  /** The `at`th call from now on, of those that can, has a lasting fault; 0: none has, calls are counted. */
  lasting(at: number, seed: number): void {
    this.#every = 0
    this.#random = randomFrom(seed)
    this.#restart()
    this.#lastingAt = at
  }

  off(): void {
    this.#every = this.#lastingAt = 0
  }

  /** Stands for a function of the C library. */
  wrap(signature: string, real: NativeFunction): NativeFunction {
    const name = /(\w+)\s*\(/.exec(signature)![1]!
    return (...args) => {
      const call = name === 'syscall' ? (SYSCALLS[Number(args[0])] ?? name) : name
      const fault = this.#choose(call)
      if (fault === undefined) return real(...args)
      if (fault === 'short') return short(call, args, real, this.#random)
      koffi.errno(E[fault]!)
      return -1
    }
  }

  #restart(): void {
    this.done.length = 0
    this.calls = 0
    this.#lastingAt = 0
  }

  #choose(call: string): string | undefined {
    const kinds = this.#every > 0 ? PASSING[call] : LASTING[call]
    if (!kinds) return undefined
    this.calls++
    if (this.#every > 0 ? this.#random(this.#every) !== 0 : this.calls !== this.#lastingAt) return undefined
    const error = kinds[this.#random(kinds.length)]!
    if (this.done.length < 1000) this.done.push({ at: this.calls, call, error })
    return error
  }
}

type Args = Parameters<NativeFunction>
/** struct msghdr with its iovec behind it, as ffi/scm.ts lays it out: the length of the data, in words. */
const IOV_LEN = 18

/** The same call for a part of the bytes. */
function short(call: string, args: Args, real: NativeFunction, random: (n: number) => number): number {
  if (call === 'readv' || call === 'writev') return real(args[0]!, args[1]!, 1)
  if (call === 'recvmsg') {
    const header = args[1] as Uint8Array
    const words = new Uint32Array(header.buffer, header.byteOffset, header.byteLength >> 2)
    const len = words[IOV_LEN]!
    words[IOV_LEN] = Math.max(1, random(len))
    const result = real(...args)
    words[IOV_LEN] = len
    return result
  }
  const [fd, data, len, ...rest] = args
  return real(fd!, data!, Math.max(1, random(Number(len))), ...rest)
}

export const FAULTS: Faults = new Faults()
