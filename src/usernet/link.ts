/**
 * A session of two ends over one connection: channels, credit, ping. The same at both ends; what only one of them does
 * is in host-end.ts and guest-end.ts. Bounded throughout: what is to be said is state of a channel, not a queue, and is
 * said when the connection has room.
 */

import { LinkChannel, type ChannelOwner } from './channel.ts'
import { encodeFrame, FRAME } from './frame.ts'

/** A connection; its owner calls `pump` when there is room again. */
export interface LinkStream {
  /** Bytes that it holds and the other side has not taken. */
  readonly held: number
  send(bytes: Uint8Array): void
}

/** The other side broke a rule: the session is over. */
export class LinkFault extends Error {}

/** Bytes that wait in our own memory for the connection, beyond which nothing new is said. */
const HELD_MAX = 128 << 10
/**
 * An other side from which nothing came between two ticks is asked whether it lives, and taken for gone at the third in
 * a row. Ticks rather than time: a machine that was stopped finds its clock far ahead.
 */
export const PING_MS = 10_000
export const SILENT_TICKS = 3
/** For the driver half over the loopback: 256 KiB for a port in use, the bytes wait in the channel. */
export const LOOPBACK_DRIVER = {
  receiveBuffers: 16,
  receiveLen: 8192,
  transmitBuffers: 4,
  transmitLen: 32_768,
} as const
/** Channels in one session; their numbers are 16 bits wide. */
const NUMBER_MAX = 0xffff
/** Bounds of what the other side may say its window is. */
export const WINDOW_MIN = 1024
export const WINDOW_MAX: number = 16 << 20

export abstract class Link implements ChannelOwner {
  readonly tag: number
  readonly channels: Map<number, LinkChannel> = new Map()
  protected readonly stream: LinkStream
  protected next = 1
  readonly #window: number
  readonly #dirty = new Set<LinkChannel>()
  readonly #timer: NodeJS.Timeout
  #heard = true
  #unheard = 0
  #ping = false
  #pong = false
  #pumping = false
  #ended = false

  /** `window` is the other side's. */
  constructor(stream: LinkStream, tag: number, window: number) {
    this.stream = stream
    this.tag = tag
    this.#window = window
    this.#timer = setInterval(() => this.#tick(), PING_MS)
  }

  get ended(): boolean {
    return this.#ended
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    clearInterval(this.#timer)
    for (const channel of this.channels.values()) channel.close()
    this.channels.clear()
    this.#dirty.clear()
  }

  // --- ChannelOwner

  get room(): number {
    return this.#ended ? 0 : HELD_MAX - this.stream.held
  }

  send(frame: Buffer): void {
    if (!this.#ended) this.stream.send(frame)
  }

  dirty(channel: LinkChannel): void {
    if (this.#ended || this.channels.get(channel.number) !== channel) return
    this.#dirty.add(channel)
    this.pump()
  }

  // --- what goes

  /** Says what there is to say, as far as there is room. */
  pump(): void {
    if (this.#ended || this.#pumping) return
    this.#pumping = true
    try {
      if (this.#pong && this.room > 0) {
        this.#pong = false
        this.say(FRAME.PONG, 0)
      }
      if (this.#ping && this.room > 0) {
        this.#ping = false
        this.say(FRAME.PING, 0)
      }
      this.announce()
      for (const channel of this.#dirty) {
        if (this.room <= 0) break
        this.#dirty.delete(channel)
        const { credit, open } = channel.pending()
        if (credit > 0) this.say(FRAME.CREDIT, channel.number, u32(credit))
        if (open !== undefined) this.say(FRAME.OPEN, channel.number, Uint8Array.of(open ? 1 : 0))
      }
    } finally {
      this.#pumping = false
    }
  }

  /** The connection has room again: those who wait for it go on, another one first each time. */
  drained(): void {
    this.pump()
    for (const channel of [...this.channels.values()]) {
      if (this.room <= 0) break
      channel.unblock()
      if (this.channels.delete(channel.number)) this.channels.set(channel.number, channel)
    }
  }

  /** What only one end has to say. */
  protected announce(): void {}

  protected say(type: number, channel: number, payload: Uint8Array = NOTHING): void {
    this.stream.send(encodeFrame(type, channel, payload, this.tag))
  }

  protected newChannel(number: number, lastWords: boolean): LinkChannel {
    const channel = new LinkChannel(number, this, this.#window, lastWords)
    this.channels.set(number, channel)
    this.next = number + 1
    return channel
  }

  protected get exhausted(): boolean {
    return this.next > NUMBER_MAX
  }

  // --- what comes

  /** Throws LinkFault. */
  receive(type: number, number: number, payload: Buffer): void {
    if (this.#ended) return
    this.#heard = true
    if (type === FRAME.PING) this.#pong = true
    else if (type === FRAME.DATA || type === FRAME.CREDIT || type === FRAME.OPEN)
      this.#forChannel(type, number, payload)
    else if (type !== FRAME.PONG) this.special(type, number, payload)
    this.heard()
    if (this.#pong) this.pump()
  }

  /** Frames that only one end gets. */
  protected abstract special(type: number, number: number, payload: Buffer): void

  /** Something came. */
  protected heard(): void {}
  /** Nothing has come for SILENT_TICKS; at each tick again. */
  protected silent(): void {}

  #forChannel(type: number, number: number, payload: Buffer): void {
    const channel = this.channels.get(number)
    if (!channel) {
      // Of a port that is gone, which the other side did not know yet.
      if (number > 0 && number < this.next) return
      throw new LinkFault(`a frame for channel ${number}, which does not exist`)
    }
    if (type === FRAME.DATA) {
      if (payload.length === 0) throw new LinkFault('a data frame without data')
      if (!channel.receive(payload)) throw new LinkFault(`more data than channel ${number} has credit for`)
    } else if (type === FRAME.CREDIT) {
      if (payload.length !== 4) throw new LinkFault(`a credit frame of ${payload.length} bytes`)
      if (!channel.addCredit(payload.readUInt32LE(0))) throw new LinkFault(`credit without end for channel ${number}`)
    } else {
      if (payload.length !== 1 || payload[0]! > 1) throw new LinkFault('an open frame that says neither yes nor no')
      this.opened(channel, payload[0] === 1)
    }
  }

  protected opened(channel: LinkChannel, open: boolean): void {
    channel.setRemoteOpen(open)
  }

  #tick(): void {
    this.#unheard = this.#heard ? 0 : this.#unheard + 1
    this.#heard = false
    if (this.#unheard === 0) return
    if (this.#unheard >= SILENT_TICKS) this.silent()
    if (this.#ended) return
    this.#ping = true
    this.pump()
  }
}

const NOTHING = new Uint8Array(0)

export function u32(value: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32LE(value)
  return bytes
}
