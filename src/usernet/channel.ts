/**
 * One port on a link: for the half beside it a chardev, whose far end is the other side of the link. The same at both
 * ends. What comes waits here, within the credit that was given, until it is asked for; what goes is handed to the link
 * within the credit that was got. Made by host-end.ts and guest-end.ts.
 */

import { GONE, type Chardev, type ChardevEnd } from '../chardev/chardev.ts'
import { HoldBuffer } from '../device/hold-buffer.ts'
import { Iovec } from '../mem/iovec.ts'
import { DATA_MAX, FRAME, HEADER_LEN, TRAILER_LEN, writeHeader } from './frame.ts'

/** Bytes of one direction of one port that may be on their way. */
export const WINDOW: number = 256 << 10
/** Credit is given back in pieces of this. */
const CREDIT_LEN = WINDOW >> 2

/** What a channel needs of its link. */
export interface ChannelOwner {
  readonly tag: number
  /** Bytes that may be sent now. */
  readonly room: number
  send(frame: Buffer): void
  /** The channel has something to say when there is room. */
  dirty(channel: LinkChannel): void
}

export class LinkChannel implements Chardev {
  readonly number: number
  readonly label = 'usernet'
  readonly place: string | undefined = undefined
  readonly #owner: ChannelOwner
  readonly #list = new Iovec()
  #end: ChardevEnd | undefined
  #dead = false
  // --- what comes
  readonly #in = new HoldBuffer(WINDOW)
  /** What the other side may still send, and what of the window it has yet to get back. */
  #allowed = WINDOW
  #owed = 0
  #reading = false
  #connected = false
  /** The other side has closed behind so many bytes that nobody has read yet, and opened again. */
  #closeAt: number | undefined
  #reopened = false
  // --- what goes
  #credit: number
  #blocked = false
  readonly #lastWords: boolean
  #localOpen = false
  #toldOpen = false

  /** `credit`: the other side's window. `lastWords`: what was written before this side closes goes before the end does. */
  constructor(number: number, owner: ChannelOwner, credit: number, lastWords: boolean) {
    this.number = number
    this.#owner = owner
    this.#credit = credit
    this.#lastWords = lastWords
  }

  /** The port that this is the chardev of. */
  bind(end: ChardevEnd): this {
    this.#end = end
    return this
  }

  // --- this side

  /** Whether somebody has this side open. */
  setLocalOpen(open: boolean): void {
    if (this.#localOpen === open) return
    this.#localOpen = open
    if (!open && this.#lastWords) this.#end?.writable()
    this.#owner.dirty(this)
  }

  /** Drops what has come and nobody has read; returns the bytes. */
  discardInput(): number {
    const bytes = this.#in.clear()
    this.#gaveUp(bytes)
    if (this.#closeAt !== undefined) this.#later(() => this.#closed())
    return bytes
  }

  /** What there is to say, for the link to send: credit, and whether this side is open. */
  pending(): { credit: number; open: boolean | undefined } {
    const credit = this.#owed
    this.#owed = 0
    this.#allowed += credit
    const waits = this.#blocked && this.#lastWords && !this.#localOpen
    const open = this.#localOpen === this.#toldOpen || waits ? undefined : this.#localOpen
    if (open !== undefined) this.#toldOpen = open
    return { credit, open }
  }

  // --- the other side

  /** Bytes of the other side; false where it had no credit for them. */
  receive(payload: Buffer): boolean {
    if (payload.length > this.#allowed) return false
    this.#allowed -= payload.length
    const list = this.#list
    list.clear()
    list.push(payload, 0, payload.length, 0)
    this.#in.take(list, 0, 'newest')
    if (this.#dead) this.discardInput()
    else if (this.#reading) this.#end?.readable()
    return true
  }

  /** False where that is more than there can be. */
  addCredit(bytes: number): boolean {
    this.#credit += bytes
    if (this.#credit > 2 ** 31) return false
    this.unblock()
    return true
  }

  setRemoteOpen(open: boolean): void {
    if (this.#closeAt !== undefined) {
      this.#reopened = open
      if (!open) this.#closeAt = this.#in.len
      return
    }
    if (open === this.#connected) return
    if (!open && this.#in.len > 0) this.#closeAt = this.#in.len
    else this.#setConnected(open)
  }

  /** There may be room again. */
  unblock(): void {
    if (!this.#blocked || this.#owner.room <= 0 || this.#credit === 0) return
    this.#blocked = false
    this.#end?.writable()
    if (this.#localOpen !== this.#toldOpen) this.#owner.dirty(this)
  }

  // --- Chardev

  get connected(): boolean {
    return this.#connected
  }

  writev(list: Iovec): number {
    if (this.#dead) return GONE
    const bytes = this.#owner.room > 0 ? Math.min(list.total, this.#credit) : 0
    this.#blocked = bytes < list.total
    if (bytes === 0) return 0
    this.#credit -= bytes
    const frames = Math.ceil(bytes / DATA_MAX)
    const out = Buffer.allocUnsafe(bytes + frames * (HEADER_LEN + TRAILER_LEN))
    // Copied to the end at once, moved up behind each header.
    let from = out.length - bytes
    list.copyTo(out.subarray(from))
    for (let at = 0; from < out.length;) {
      const len = Math.min(DATA_MAX, out.length - from)
      out.copyWithin(at + HEADER_LEN, from, from + len)
      from += len
      writeHeader(out, at, FRAME.DATA, this.number, len)
      at += HEADER_LEN + len
      out.writeUInt32LE(this.#owner.tag, at)
      at += TRAILER_LEN
    }
    this.#owner.send(out)
    return bytes
  }

  readv(list: Iovec): number {
    const own = this.#list
    this.#in.lend(own)
    const most = Math.min(own.len[0]!, this.#closeAt ?? Infinity)
    if (own.count === 0 || most === 0) return 0
    const bytes = list.copyFrom(own.bytes[0]!.subarray(own.offset[0], own.offset[0]! + most))
    this.#in.consume(bytes)
    this.#gaveUp(bytes)
    if (this.#closeAt !== undefined && (this.#closeAt -= bytes) === 0) this.#later(() => this.#closed())
    return bytes
  }

  setReading(on: boolean): void {
    if (this.#reading === on) return
    this.#reading = on
    if (on && this.#in.len > 0) this.#later(() => this.#reading && this.#end?.readable())
  }

  disconnect(): void {}

  /** The port is gone; the other side may not know it yet. */
  close(): void {
    this.#dead = true
    this.#end = undefined
    this.discardInput()
  }

  // --- helpers

  #gaveUp(bytes: number): void {
    this.#owed += bytes
    if (this.#owed >= CREDIT_LEN) this.#owner.dirty(this)
  }

  /** What stood before the end has been read. */
  #closed(): void {
    if (this.#closeAt === undefined || (this.#closeAt > 0 && this.#in.len > 0)) return
    this.#closeAt = undefined
    this.#setConnected(false)
    if (this.#reopened) this.#setConnected(true)
    this.#reopened = false
    if (this.#reading && this.#in.len > 0) this.#end?.readable()
  }

  #setConnected(connected: boolean): void {
    // What is on its way to a program that has closed waits for the next one at the other side; this side would drop it.
    if (!connected) this.#end?.writable()
    this.#connected = connected
    this.#end?.setConnected(connected)
    // What waited for credit was for whoever has left.
    if (!connected && this.#blocked) {
      this.#blocked = false
      this.#owner.dirty(this)
    }
  }

  /** A port is never called from inside its own call. */
  #later(fn: () => void): void {
    queueMicrotask(() => {
      if (!this.#dead) fn()
    })
  }
}
