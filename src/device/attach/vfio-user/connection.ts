/**
 * One connection to the vfio-user socket: from accept to its end. Made by the server.
 *
 * Whoever connects is nobody until its VERSION message has been accepted: a connection owns a socket and a timer, and
 * has no way to memory, interrupts, registers, ledger or store. Only the attached VMM has a session, which owns those.
 */

import { hangUp } from '../../../ffi/socket-calls.ts'
import { CarefulStream } from './careful-stream.ts'
import type { Session } from './session.ts'
import { Stream, type MessageStream } from './stream.ts'
import { parseVersion, VERSION_REPLY_MAX, writeVersion, type VmmVersion } from './version.ts'
import {
  COMMAND,
  ERRNO,
  FLAG_ERROR,
  FLAG_NO_REPLY,
  HEADER_SIZE,
  setHeader,
  TYPE_MASK,
  TYPE_REPLY,
  TYPE_REQUEST,
  type Message,
} from './wire.ts'

/** A VMM says its version at once; who does not is none. */
const HANDSHAKE_MS = 5000

export interface ConnectionOptions {
  /** Whether this process has a successor: then nothing is taken out of the socket before it is done. */
  readonly careful: boolean
  /** The VMM has introduced itself: its session, or undefined where another VMM is attached. */
  readonly attach: (version: VmmVersion) => Session | undefined
  /** It is over; everything is closed. */
  readonly ended: (reason: string) => void
}

export class Connection {
  readonly stream: MessageStream
  readonly #fd: number
  readonly #options: ConnectionOptions
  #handshake: NodeJS.Timeout | undefined
  #session: Session | undefined
  #ended = false

  /** Takes over `fd`. */
  constructor(fd: number, options: ConnectionOptions) {
    this.#fd = fd
    this.#options = options
    const end = { message: (m: Message): void => this.#message(m), closed: (reason: string): void => this.end(reason) }
    this.stream = options.careful ? new CarefulStream(fd, end) : new Stream(fd, end)
    this.#handshake = setTimeout(() => this.end(`no VERSION message within ${HANDSHAKE_MS / 1000} s`), HANDSHAKE_MS)
    this.#handshake.unref()
  }

  get fd(): number {
    return this.#fd
  }

  /** Everything that comes from now on is for `session`. */
  become(session: Session): void {
    clearTimeout(this.#handshake)
    this.#session = session
  }

  /** Ends the connection and gives everything back. */
  end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#handshake)
    // The keeper's copy must not keep the VMM waiting.
    if (this.#options.careful) hangUp(this.#fd)
    this.stream.close()
    this.#session?.close()
    this.#options.ended(reason)
  }

  #message(message: Message): void {
    const fault = this.#session ? this.#session.message(message) : this.#introduce(message)
    if (fault !== undefined) this.end(fault)
  }

  /** The first message has to be VERSION; returns why to hang up. */
  #introduce(message: Message): string | undefined {
    const type = message.flags & TYPE_MASK
    if (type !== TYPE_REQUEST) return `a message of type ${type} before VERSION`
    const version =
      message.command === COMMAND.VERSION ? parseVersion(message) : `command ${message.command} before VERSION`
    if (typeof version === 'string') return this.#refuse(message, ERRNO.EINVAL, version)
    const session = this.#options.attach(version)
    if (!session) return this.#refuse(message, ERRNO.EBUSY, 'another VMM is attached')
    const bytes = new Uint8Array(new ArrayBuffer(HEADER_SIZE + VERSION_REPLY_MAX))
    const reply = { bytes, view: new DataView(bytes.buffer) }
    const len = writeVersion(reply, session.maxDataXfer)
    if ((message.flags & FLAG_NO_REPLY) !== 0) return undefined
    this.stream.reply(message.id, bytes, setHeader(reply.view, message.id, message.command, len, TYPE_REPLY))
    return undefined
  }

  #refuse(message: Message, error: number, why: string): string {
    if ((message.flags & FLAG_NO_REPLY) !== 0) return why
    const bytes = new Uint8Array(new ArrayBuffer(128)) // never inside the garbage-collected heap
    const size = setHeader(new DataView(bytes.buffer), message.id, message.command, 0, TYPE_REPLY | FLAG_ERROR, error)
    this.stream.send(bytes, size)
    return why
  }
}
