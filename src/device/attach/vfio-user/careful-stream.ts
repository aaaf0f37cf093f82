/**
 * The byte stream of a VMM for a process that may be killed at any moment, and has a successor: nothing is taken out of
 * the socket before it is done and answered. Stands in for stream.ts where there is a keeper; called by the session.
 *
 * Requests are looked at (MSG_PEEK, which copies their descriptors too), handled, noted, and then consumed. A successor
 * finds in the socket what was not done, and perhaps something that was: the notes tell it apart. Messages are small
 * here, since they have to fit into the socket as a whole; that is what the VMM was told.
 */

import { closeFd, EAGAIN, errnoName } from '../../../ffi/libc.ts'
import { receiveBytes } from '../../../ffi/local-socket.ts'
import { sendNoted } from '../../../ffi/mmsg.ts'
import { Watch } from '../../../ffi/poll.ts'
import { hungUp } from '../../../ffi/rw.ts'
import { Receiver, sendBytes } from '../../../ffi/scm.ts'
import type { MessageStream, StreamEnd } from './stream.ts'
import { TURNS, type Turns, type Worker } from './turns.ts'
import type { VmmNotes } from './vmm-notes.ts'
import { HEADER, HEADER_SIZE, TYPE_MASK, TYPE_REQUEST, type Message } from './wire.ts'

/** Most data in one region access or DMA message of such a connection: told to the VMM. */
export const CAREFUL_DATA_XFER: number = 32 << 10
const READ_SIZE = 64 * 1024
/** How soon to look again at a message that has come in part; the socket stays readable meanwhile. */
const PART_MS = 2
const NO_FDS: number[] = []

export class CarefulStream implements MessageStream, Worker {
  readonly #fd: number
  readonly #end: StreamEnd
  readonly #turns: Turns
  /** Of the attached VMM only. */
  #notes: VmmNotes | undefined
  readonly #watch: Watch
  readonly #bytes = new Uint8Array(new ArrayBuffer(READ_SIZE))
  readonly #scratch = new Uint8Array(new ArrayBuffer(READ_SIZE))
  readonly #receiver: Receiver = new Receiver(this.#bytes)
  readonly #message: Message
  /** Requests that the process before has done may be in the socket. */
  #resumed = false
  #unsent: Uint8Array | undefined
  #part: NodeJS.Timeout | undefined
  /** The VMM had hung up when a part of a message was looked at last. */
  #partIsAll = false
  #closed = false

  /** Takes over `fd`. */
  constructor(fd: number, end: StreamEnd, turns: Turns = TURNS) {
    this.#fd = fd
    this.#end = end
    this.#turns = turns
    const view = new DataView(this.#bytes.buffer)
    this.#message = { bytes: this.#bytes, view, id: 0, command: 0, flags: 0, errno: 0, at: 0, len: 0, fds: NO_FDS }
    this.#watch = new Watch(fd, (ready) => {
      if (ready.writable && this.#unsent) this.#flush()
      this.#turns.take(this)
    })
    this.#watch.want(true, false)
  }

  get blocked(): boolean {
    return this.#unsent !== undefined
  }

  note(notes: VmmNotes, resumed: boolean): void {
    this.#notes = notes
    this.#resumed = resumed
  }

  send(data: Uint8Array, len: number): boolean {
    return !this.#closed && this.#sent(data, len, sendBytes(this.#fd, data, len))
  }

  reply(id: number, data: Uint8Array, len: number): boolean {
    if (this.#closed) return false
    const header = this.#notes?.header
    if (!header) return this.send(data, len)
    this.#notes!.replying(id)
    return this.#sent(data, len, sendNoted(this.#fd, data, len, header.words, header.address))
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#part)
    this.#watch.close()
    closeFd(this.#fd)
    this.#unsent = undefined
  }

  #sent(data: Uint8Array, len: number, sent: number): boolean {
    if (sent === len) return true
    if (sent < 0 && sent !== -EAGAIN) {
      this.#fail(`cannot send: ${errnoName(-sent)}`)
      return false
    }
    this.#unsent = data.slice(Math.max(sent, 0), len)
    this.#watch.want(false, true)
    return true
  }

  #flush(): void {
    const rest = this.#unsent!
    const sent = sendBytes(this.#fd, rest, rest.length)
    if (sent < 0) {
      if (sent !== -EAGAIN) this.#fail(`cannot send: ${errnoName(-sent)}`)
      return
    }
    this.#unsent = sent < rest.length ? rest.subarray(sent) : undefined
    if (!this.#unsent) this.#watch.want(true, false)
  }

  #fail(reason: string): void {
    if (this.#closed) return
    this.close()
    this.#end.closed(reason)
  }

  /** Looks, handles and consumes until nothing is left, or until others must have their turn. */
  work(): boolean {
    while (!this.#closed && !this.#unsent && this.#round()) if (this.#turns.over) return true
    return false
  }

  /** Looks, handles, consumes; false where there is nothing more for now. */
  #round(): boolean {
    const got = this.#receiver.receive(this.#fd, 0, READ_SIZE, true)
    if (got === 0) this.#fail('closed by the VMM')
    else if (got < 0 && got !== -EAGAIN) this.#fail(`cannot receive: ${errnoName(-got)}`)
    if (got <= 0) return false
    const { fds } = this.#receiver
    try {
      if (this.#receiver.truncated) this.#fail('descriptors were lost: this process has no more of them')
      else if (!this.#work(got, fds)) return false
    } finally {
      for (const fd of fds) if (fd !== -1) closeFd(fd)
    }
    return !this.#closed
  }

  #work(stop: number, fds: number[]): boolean {
    const { view } = this.#message
    const ends: number[] = []
    let at = 0
    while (stop - at >= HEADER_SIZE) {
      const size = view.getUint32(at + HEADER.size, true)
      if (size < HEADER_SIZE || size > READ_SIZE) {
        this.#fail(`a message of ${size} bytes, expected ${HEADER_SIZE} to ${READ_SIZE}`)
        return false
      }
      if (stop - at < size) break
      at += size
      ends.push(at)
    }
    if (at === 0) return this.#waitForRest()
    // Descriptors come with the last message that begins in what was read: a part at the end, which is read again.
    const owner = at < stop ? -1 : ends.length - 1
    let done = this.#resumed ? this.#doneBefore(ends) : 0
    this.#resumed = false
    let consumed = done === 0 ? 0 : ends[done - 1]!
    for (; done < ends.length && !this.#unsent; done++) {
      this.#handle(consumed, ends[done]!, done === owner ? fds : NO_FDS)
      if (this.#closed) return false
      consumed = ends[done]!
      if (this.#turns.over) break
    }
    this.#consume(consumed)
    return true
  }

  #handle(start: number, end: number, fds: number[]): void {
    const message = this.#message
    const { view } = message
    message.id = view.getUint16(start + HEADER.id, true)
    message.command = view.getUint16(start + HEADER.command, true)
    message.flags = view.getUint32(start + HEADER.flags, true)
    message.errno = view.getUint32(start + HEADER.errno, true)
    message.at = start + HEADER_SIZE
    message.len = end - message.at
    message.fds = fds
    this.#end.message(message)
    message.fds = NO_FDS
    if ((message.flags & TYPE_MASK) === TYPE_REQUEST) this.#notes?.done(message.id)
  }

  /** How many of the messages the process before has done; they are in order. */
  #doneBefore(ends: readonly number[]): number {
    const { view } = this.#message
    let done = 0
    let start = 0
    for (const [i, end] of ends.entries()) {
      const request = (view.getUint32(start + HEADER.flags, true) & TYPE_MASK) === TYPE_REQUEST
      if (request && this.#notes!.isDone(view.getUint16(start + HEADER.id, true))) done = i + 1
      start = end
    }
    return done
  }

  /** Takes what is done out of the socket; descriptors that come along are closed by the kernel. */
  #consume(len: number): void {
    for (let left = len; left > 0;) {
      const got = receiveBytes(this.#fd, this.#scratch.subarray(0, left))
      if (got <= 0) return this.#fail('the socket lost what it had')
      left -= got
    }
  }

  /** A part that is looked at without being taken hides the end of the connection. */
  #waitForRest(): false {
    if (this.#partIsAll) {
      this.#fail('closed by the VMM within a message')
      return false
    }
    // One more look: the rest may have come before the end.
    this.#partIsAll = hungUp(this.#fd)
    this.#watch.want(false, false)
    this.#part ??= setTimeout(() => {
      this.#part = undefined
      if (this.#closed || this.#unsent) return
      this.#watch.want(true, false)
      this.#turns.take(this)
    }, PART_MS)
    return false
  }
}
