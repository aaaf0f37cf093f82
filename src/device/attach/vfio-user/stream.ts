/**
 * The byte stream of one VMM: cuts it into messages, hands each its descriptors, sends replies in one piece.
 *
 * Called by the session. Everything is bounded: one receive buffer, one unsent reply. While a reply is stuck because
 * the VMM does not read, nothing more is taken from it.
 */

import { closeFd, EAGAIN, errnoName } from '../../../ffi/libc.ts'
import { Watch } from '../../../ffi/poll.ts'
import { Receiver, sendBytes } from '../../../ffi/scm.ts'
import { TURNS, type Turns, type Worker } from './turns.ts'
import type { VmmNotes } from './vmm-notes.ts'
import { HEADER, HEADER_SIZE, MAX_MESSAGE, type Message } from './wire.ts'

/** Bytes asked for in one read. */
const READ_SIZE = 64 * 1024
const NO_FDS: number[] = []

export interface StreamEnd {
  /** One whole message. */
  message(message: Message): void
  /** The connection is over; called once, not after `close()`. */
  closed(reason: string): void
}

/** What the session needs of a stream: this one, or careful-stream.ts. */
export interface MessageStream {
  /** Whether a message could not be sent in full yet: send nothing more now. */
  readonly blocked: boolean
  /** Sends the first `len` bytes of `data`. False where the connection is over. Only while not `blocked`. */
  send(data: Uint8Array, len: number): boolean
  /** The same for the answer to request `id`. */
  reply(id: number, data: Uint8Array, len: number): boolean
  /**
   * The VMM is attached: its requests are noted from now on, for a successor. Nothing of any other connection is. With
   * `resumed` the process before had this connection.
   */
  note?(notes: VmmNotes, resumed: boolean): void
  /** Ends the connection without a word to the end. */
  close(): void
}

/** Descriptors that wait for the rest of the message they came with. */
interface HeldFds {
  /** Where that message starts in the buffer. */
  at: number
  fds: number[]
}

export class Stream implements MessageStream, Worker {
  readonly #fd: number
  readonly #end: StreamEnd
  readonly #turns: Turns
  readonly #watch: Watch
  readonly #bytes = new Uint8Array(new ArrayBuffer(MAX_MESSAGE + READ_SIZE))
  readonly #receiver: Receiver
  readonly #message: Message
  /** Received and not yet handled: [start, stop). */
  #start = 0
  #stop = 0
  #held: HeldFds[] = []
  /** The rest of a message that the socket did not take. */
  #unsent: Uint8Array | undefined
  /** The last read took all that was there: what comes then, an end too, the event loop tells. */
  #drained = false
  #hungUp = false
  #closed = false

  /** Takes over `fd`. */
  constructor(fd: number, end: StreamEnd, turns: Turns = TURNS) {
    this.#fd = fd
    this.#end = end
    this.#turns = turns
    this.#receiver = new Receiver(this.#bytes)
    const view = new DataView(this.#bytes.buffer)
    this.#message = { bytes: this.#bytes, view, id: 0, command: 0, flags: 0, errno: 0, at: 0, len: 0, fds: NO_FDS }
    this.#watch = new Watch(fd, (ready) => {
      // After an error the watch has stopped: this is the last turn, and has to find the end.
      if (ready.disconnect) this.#hungUp = true
      if (ready.writable && this.#unsent) this.#flush()
      this.#turns.take(this)
    })
    this.#watch.want(true, false)
  }

  get blocked(): boolean {
    return this.#unsent !== undefined
  }

  reply(_id: number, data: Uint8Array, len: number): boolean {
    return this.send(data, len)
  }

  send(data: Uint8Array, len: number): boolean {
    if (this.#closed) return false
    const sent = sendBytes(this.#fd, data, len)
    if (sent === len) return true
    if (sent < 0 && sent !== -EAGAIN) {
      this.#fail(`cannot send: ${errnoName(-sent)}`)
      return false
    }
    // A copy: rare, and at most one reply long. The header is never split: the kernel takes pages, not bytes.
    this.#unsent = data.slice(Math.max(sent, 0), len)
    this.#watch.want(false, true)
    return true
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#watch.close()
    closeFd(this.#fd)
    for (const held of this.#held) closeAll(held.fds)
    this.#held = []
    this.#unsent = undefined
  }

  #fail(reason: string): void {
    if (this.#closed) return
    this.close()
    this.#end.closed(reason)
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

  /** Reads and handles until nothing is left, or until others must have their turn. */
  work(): boolean {
    this.#drained = false
    while (!this.#closed && !this.#unsent) {
      if (this.#handle()) return true
      if (this.#closed || this.#unsent || this.#drained || !this.#read()) break
    }
    return false
  }

  /** One read; false where nothing came. */
  #read(): boolean {
    if (this.#start === this.#stop) this.#start = this.#stop = 0
    else if (this.#stop + READ_SIZE > this.#bytes.length) this.#compact()
    const before = this.#stop
    const got = this.#receiver.receive(this.#fd, before, READ_SIZE)
    if (got > 0) {
      this.#stop += got
      // A read stops behind descriptors, whatever follows.
      this.#drained = got < READ_SIZE && this.#receiver.fds.length === 0 && !this.#hungUp
      return this.#receiver.fds.length === 0 ? !this.#lostFds() : this.#holdFds(before)
    }
    if (got === 0) this.#fail(this.#start === this.#stop ? 'closed by the VMM' : 'closed by the VMM within a message')
    else if (got !== -EAGAIN) this.#fail(`cannot receive: ${errnoName(-got)}`)
    return false
  }

  #lostFds(): boolean {
    if (this.#receiver.truncated) this.#fail('descriptors were lost: this process has no more of them')
    return this.#receiver.truncated
  }

  /** Descriptors belong to the last message that begins in the read which brought them. */
  #holdFds(readStart: number): boolean {
    const fds = this.#receiver.fds
    let at = this.#start
    let owner = -1
    while (at < this.#stop) {
      if (at >= readStart) owner = at
      if (this.#stop - at < HEADER_SIZE) break
      const size = this.#message.view.getUint32(at + HEADER.size, true)
      if (size < HEADER_SIZE) break // #handle says what is wrong
      at += size
    }
    // Held for at most two messages: the one that is being completed, and the next.
    if (owner === -1 || this.#held.length > 1) {
      closeAll(fds)
      this.#fail('descriptors that belong to no message')
      return false
    }
    this.#held.push({ at: owner, fds })
    return !this.#lostFds()
  }

  /** Handles what is whole in the buffer; true where the turn was over before that. */
  #handle(): boolean {
    const message = this.#message
    const view = message.view
    while (this.#stop - this.#start >= HEADER_SIZE) {
      const start = this.#start
      const size = view.getUint32(start + HEADER.size, true)
      if (size < HEADER_SIZE || size > MAX_MESSAGE) {
        this.#fail(`a message of ${size} bytes, expected ${HEADER_SIZE} to ${MAX_MESSAGE}`)
        return false
      }
      if (this.#stop - start < size) break
      this.#start = start + size
      message.id = view.getUint16(start + HEADER.id, true)
      message.command = view.getUint16(start + HEADER.command, true)
      message.flags = view.getUint32(start + HEADER.flags, true)
      message.errno = view.getUint32(start + HEADER.errno, true)
      message.at = start + HEADER_SIZE
      message.len = size - HEADER_SIZE
      const held = this.#held[0]
      if (held && held.at === start) this.#handleWithFds(held.fds)
      else this.#end.message(message)
      if (this.#closed || this.#unsent) return false
      if (this.#turns.over) return true
    }
    return false
  }

  #handleWithFds(fds: number[]): void {
    this.#held.shift()
    this.#message.fds = fds
    try {
      this.#end.message(this.#message)
    } finally {
      this.#message.fds = NO_FDS
      closeAll(fds)
    }
  }

  /** Moves the begun message to the front. */
  #compact(): void {
    this.#bytes.copyWithin(0, this.#start, this.#stop)
    for (const held of this.#held) held.at -= this.#start
    this.#stop -= this.#start
    this.#start = 0
  }
}

function closeAll(fds: number[]): void {
  for (const fd of fds) if (fd !== -1) closeFd(fd)
}
