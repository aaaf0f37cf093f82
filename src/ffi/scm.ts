/**
 * Bytes together with file descriptors over a unix socket: recvmsg and sendmsg with SCM_RIGHTS.
 *
 * Used by the vfio-user stream. A plain read would let the kernel close the descriptors without a word.
 */

import { addressOf, declare, EINTR, errno } from './libc.ts'

const recvmsgFunction = declare('int64_t recvmsg(int fd, void *message, int flags)')
const sendmsgFunction = declare('int64_t sendmsg(int fd, void *message, int flags)')
const sendFunction = declare('int64_t send(int fd, void *data, size_t len, int flags)')

const MSG_PEEK = 0x2
const MSG_CTRUNC = 0x8
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x40000000
const SOL_SOCKET = 1
const SCM_RIGHTS = 1

/** Most descriptors the kernel puts into one message (SCM_MAX_FD). */
export const SCM_MAX_FDS = 253

// One block holds struct msghdr, one struct iovec and the control data; layout of every LP64 Linux, glibc and musl.
const IOV = 64
const CONTROL = 128
const CONTROL_HEADER = 16
const CONTROL_SIZE = CONTROL_HEADER + SCM_MAX_FDS * 4 + 4
const NAME_WORDS = { iov: 4, iovLen: 6, control: 8, controlLen: 10, flags: 12 } as const

/** A msghdr that is filled once and used for ever. */
class MessageHeader {
  readonly bytes = new Uint8Array(new ArrayBuffer(CONTROL + CONTROL_SIZE))
  readonly words = new Uint32Array(this.bytes.buffer)

  constructor() {
    const own = Number(addressOf(this.bytes))
    setPointer(this.words, NAME_WORDS.iov, own + IOV)
    this.words[NAME_WORDS.iovLen] = 1
    setPointer(this.words, NAME_WORDS.control, own + CONTROL)
  }

  setData(address: number, len: number): void {
    setPointer(this.words, IOV / 4, address)
    this.words[IOV / 4 + 2] = len
  }
}

function setPointer(words: Uint32Array, at: number, address: number): void {
  const high = Math.floor(address / 0x1_0000_0000)
  words[at] = address - high * 0x1_0000_0000
  words[at + 1] = high
}

/** Receives into one fixed buffer; nothing is allocated per call unless descriptors come. */
export class Receiver {
  /**
   * The descriptors of the last call, close-on-exec. The caller owns them; the array is new whenever it is not empty.
   */
  fds: number[] = NO_FDS
  /** The kernel had to drop descriptors: out of descriptors here. */
  truncated = false
  readonly #header = new MessageHeader()
  /** Held, or the address would outlive it. */
  readonly #buffer: Uint8Array
  readonly #address: number

  constructor(buffer: Uint8Array) {
    this.#buffer = buffer
    this.#address = Number(addressOf(buffer))
  }

  /**
   * Receives at most `len` bytes to `offset`, without waiting; returns the bytes, 0 at the end, or -errno. With `peek`
   * they stay in the socket, and descriptors are copies.
   */
  receive(fd: number, offset: number, len: number, peek = false): number {
    if (offset < 0 || len <= 0 || offset + len > this.#buffer.length) throw new RangeError('receive outside the buffer')
    const { words, bytes } = this.#header
    this.#header.setData(this.#address + offset, len)
    this.fds = NO_FDS
    this.truncated = false
    for (;;) {
      words[NAME_WORDS.controlLen] = CONTROL_SIZE
      words[NAME_WORDS.flags] = 0
      const result = recvmsgFunction(fd, bytes, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | (peek ? MSG_PEEK : 0))
      if (result === -1) {
        const code = errno()
        if (code === EINTR) continue
        return -code
      }
      // Where not one descriptor had a place there is no control data either: only the flag says so.
      this.truncated = (words[NAME_WORDS.flags]! & MSG_CTRUNC) !== 0
      if (words[NAME_WORDS.controlLen] !== 0) this.#takeControl()
      return result
    }
  }

  #takeControl(): void {
    const { words } = this.#header
    const end = CONTROL + Math.min(words[NAME_WORDS.controlLen]!, CONTROL_SIZE)
    for (let at = CONTROL; at + CONTROL_HEADER <= end;) {
      const len = words[at / 4]!
      if (len < CONTROL_HEADER) return
      const stop = Math.min(at + len, end)
      if (words[at / 4 + 2] === SOL_SOCKET && words[at / 4 + 3] === SCM_RIGHTS) {
        if (this.fds === NO_FDS) this.fds = []
        for (let i = at + CONTROL_HEADER; i + 4 <= stop; i += 4) this.fds.push(words[i / 4]!)
      }
      at += (len + 7) & ~7
    }
  }
}

const NO_FDS: number[] = Object.freeze([]) as unknown as number[]

/** Sends `len` bytes of `data` without waiting and without SIGPIPE; returns the bytes taken or -errno. */
export function sendBytes(fd: number, data: Uint8Array, len: number): number {
  for (;;) {
    const result = sendFunction(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL)
    if (result !== -1) return result
    const code = errno()
    if (code !== EINTR) return -code
  }
}

/** Sends `data` in one message that carries `fds` too; returns the bytes taken or -errno. The caller keeps its fds. */
export function sendWithFds(fd: number, data: Uint8Array, fds: readonly number[]): number {
  if (fds.length > SCM_MAX_FDS)
    throw new RangeError(`${fds.length} descriptors in one message, the kernel takes ${SCM_MAX_FDS}`)
  const header = new MessageHeader()
  const { words, bytes } = header
  const copy = new Uint8Array(new ArrayBuffer(Math.max(data.length, 128))) // never inside the garbage-collected heap
  copy.set(data)
  header.setData(Number(addressOf(copy)), data.length)
  if (fds.length > 0) {
    const len = CONTROL_HEADER + fds.length * 4
    words[CONTROL / 4] = len
    words[CONTROL / 4 + 2] = SOL_SOCKET
    words[CONTROL / 4 + 3] = SCM_RIGHTS
    fds.forEach((value, i) => (words[(CONTROL + CONTROL_HEADER) / 4 + i] = value))
    words[NAME_WORDS.controlLen] = (len + 7) & ~7
  }
  for (;;) {
    const result = sendmsgFunction(fd, bytes, MSG_DONTWAIT | MSG_NOSIGNAL)
    copy[0] = copy[0]! // keeps the copy alive across the call
    if (result !== -1) return result
    const code = errno()
    if (code !== EINTR) return -code
  }
}
