/**
 * What goes over the one connection of a usernet link: codec and incremental reader. Pure; called by link.ts.
 *
 * QEMU's guestfwd joins a TCP connection of the guest with a socket of the host, and says to neither when the other
 * side was closed: the stream that the host sees is one guest connection after the other, cut anywhere. So a guest
 * starts with PAD_LEN zeros and HELLO. The zeros fill up a frame that was cut, whose trailer is wrong then; between
 * frames they mean nothing. After a wrong frame only HELLO is looked for. The guest in turn reads past everything until
 * a WELCOME that repeats its nonce.
 *
 *     HELLO    16 magic, u16 version, u16 0, u32 window, 16 nonce                  guest → host
 *     WELCOME  16 magic, u16 version, u16 ports, u32 window, 16 nonce, u32 tag     host → guest
 *     frame    u8 type, u8 0, u16 channel, u32 len, len bytes, u32 tag             both; little-endian
 *
 * | type   | from  | bytes                                     | meaning                                              |
 * |--------|-------|-------------------------------------------|------------------------------------------------------|
 * | PING   | both  | none                                      | answered with PONG                                   |
 * | PONG   | both  | none                                      |                                                      |
 * | BYE    | guest | none                                      | no more of this guest end                            |
 * | ADD    | host  | u16 port, u8 flags (ADD_…), u8 0, name    | a port; its channel number is never used again       |
 * | REMOVE | host  | none                                      | the port is gone                                     |
 * | SIZE   | host  | u16 cols, u16 rows                        | size of a console                                    |
 * | OPEN   | both  | u8 0 or 1                                 | whether somebody has this side of the port open      |
 * | DATA   | both  | 1 to DATA_MAX                             | at most as many as there is credit for               |
 * | CREDIT | both  | u32                                       | so many bytes more; the window is what one starts with |
 */

export const VERSION = 1
/** Payload of a DATA frame; nothing else is longer. */
export const DATA_MAX: number = 32 << 10
export const HEADER_LEN = 8
export const TRAILER_LEN = 4
const FRAME_MAX = HEADER_LEN + DATA_MAX + TRAILER_LEN
/** More than any frame: what is left of one that was cut is over when HELLO comes. */
export const PAD_LEN: number = FRAME_MAX + HEADER_LEN
export const NONCE_LEN = 16
const HELLO_LEN = 40
const WELCOME_LEN = 44

export const FRAME = { PING: 1, PONG: 2, BYE: 3, ADD: 4, REMOVE: 5, SIZE: 6, OPEN: 7, DATA: 8, CREDIT: 9 } as const
const TYPE_MAX = 9
export const ADD_CONSOLE = 1
/** What is left when the host leaves waits for the next one. */
export const ADD_KEEP = 2

// The first byte is no frame type and not 0.
const HELLO_MAGIC = Buffer.from('\xd6vmchannel\r\nGST\x1a', 'latin1')
const WELCOME_MAGIC = Buffer.from('\xd7vmchannel\r\nHST\x1a', 'latin1')

export interface Hello {
  version: number
  window: number
  nonce: Buffer
}

export interface Welcome extends Hello {
  /** Port numbers go to one less than this. */
  maxPorts: number
  tag: number
}

export function encodeHello({ version, window, nonce }: Hello): Buffer {
  const bytes = Buffer.alloc(HELLO_LEN)
  HELLO_MAGIC.copy(bytes)
  bytes.writeUInt16LE(version, 16)
  bytes.writeUInt32LE(window, 20)
  nonce.copy(bytes, 24)
  return bytes
}

export function encodeWelcome({ version, maxPorts, window, nonce, tag }: Welcome): Buffer {
  const bytes = Buffer.alloc(WELCOME_LEN)
  WELCOME_MAGIC.copy(bytes)
  bytes.writeUInt16LE(version, 16)
  bytes.writeUInt16LE(maxPorts, 18)
  bytes.writeUInt32LE(window, 20)
  nonce.copy(bytes, 24)
  bytes.writeUInt32LE(tag, 40)
  return bytes
}

/** No byte of a tag is 0: a trailer of padding is never right. */
export function makeTag(random: number): number {
  return (random | 0x01010101) >>> 0
}

export function encodeFrame(type: number, channel: number, payload: Uint8Array, tag: number): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_LEN + payload.length + TRAILER_LEN)
  writeHeader(frame, 0, type, channel, payload.length)
  frame.set(payload, HEADER_LEN)
  frame.writeUInt32LE(tag, HEADER_LEN + payload.length)
  return frame
}

export function writeHeader(frame: Buffer, at: number, type: number, channel: number, len: number): void {
  frame[at] = type
  frame[at + 1] = 0
  frame.writeUInt16LE(channel, at + 2)
  frame.writeUInt32LE(len, at + 4)
}

export interface ReaderSink {
  /** HELLO (at the host end) or WELCOME (at the guest end). */
  greeted(greeting: Hello | Welcome): void
  /** The payload is lent. */
  frame(type: number, channel: number, payload: Buffer): void
  /** No frame from here on, until the next greeting. */
  broken(reason: string): void
}

/** Cuts a stream into frames, whatever pieces it comes in. Never holds more than one frame. */
export class FrameReader {
  readonly #sink: ReaderSink
  readonly #magic: Buffer
  readonly #greetingLen: number
  readonly #buffer: Buffer = Buffer.allocUnsafe(FRAME_MAX)
  #have = 0
  /** Looking for a greeting: there is no session. */
  #lost = true
  #tag = 0
  #stopped = false

  constructor(end: 'host' | 'guest', sink: ReaderSink) {
    this.#sink = sink
    this.#magic = end === 'host' ? HELLO_MAGIC : WELCOME_MAGIC
    this.#greetingLen = end === 'host' ? HELLO_LEN : WELCOME_LEN
  }

  /** Frames with this trailer follow. */
  expect(tag: number): void {
    this.#tag = tag
    this.#lost = false
  }

  /** Only a greeting counts from here on. */
  reset(): void {
    this.#lost = true
    this.#have = 0
  }

  /** Takes the chunk from `at` on, up to the frame at which `stop` was called; returns how far it came. */
  push(chunk: Buffer, at = 0): number {
    this.#stopped = false
    while (at < chunk.length && !this.#stopped) {
      if (this.#lost) at = this.#hunt(chunk, at)
      else if (this.#have === 0 && chunk[at] === 0) at++
      else at = this.#collect(chunk, at)
    }
    return at
  }

  /** Called by the sink: nothing more for now. */
  stop(): void {
    this.#stopped = true
  }

  /** Byte by byte: nothing is lost here but time, and that only while there is no session. */
  #hunt(chunk: Buffer, at: number): number {
    while (at < chunk.length && !this.#stopped) {
      const have = this.#have
      if (have < this.#magic.length) {
        if (have === 0) {
          at = chunk.indexOf(this.#magic[0]!, at)
          if (at === -1) return chunk.length
        }
        const byte = chunk[at++]!
        // The first byte is in the magic only once: a new start can only be here.
        if (byte === this.#magic[have]) this.#buffer[this.#have++] = byte
        else this.#have = byte === this.#magic[0] ? 1 : 0
        if (this.#have === 1) this.#buffer[0] = this.#magic[0]!
        continue
      }
      const next = this.#take(chunk, at, this.#greetingLen)
      if (this.#have === this.#greetingLen) this.#greet()
      return next
    }
    return at
  }

  #collect(chunk: Buffer, at: number): number {
    const greeting = (this.#have === 0 ? chunk[at] : this.#buffer[0]) === this.#magic[0]
    let need = greeting ? this.#greetingLen : HEADER_LEN
    if (!greeting && this.#have >= HEADER_LEN) need = HEADER_LEN + this.#len + TRAILER_LEN
    at = this.#take(chunk, at, need)
    if (this.#have < need) return at
    if (greeting) {
      if (this.#buffer.compare(this.#magic, 0, this.#magic.length, 0, this.#magic.length) === 0) this.#greet()
      else this.#break('a greeting that is none')
    } else if (need === HEADER_LEN) this.#checkHeader()
    else this.#finish()
    return at
  }

  #take(chunk: Buffer, at: number, need: number): number {
    const end = Math.min(chunk.length, at + need - this.#have)
    chunk.copy(this.#buffer, this.#have, at, end)
    this.#have += end - at
    return end
  }

  get #len(): number {
    return this.#buffer.readUInt32LE(4)
  }

  #checkHeader(): void {
    const type = this.#buffer[0]!
    if (type > TYPE_MAX || this.#buffer[1] !== 0) this.#break(`a frame of type ${type}`)
    else if (this.#len > DATA_MAX) this.#break(`a frame of ${this.#len} bytes, ${DATA_MAX} are the most`)
  }

  #finish(): void {
    const len = this.#len
    const trailer = this.#buffer.readUInt32LE(HEADER_LEN + len)
    if (trailer !== this.#tag) return this.#break('a frame that does not end where it says')
    this.#have = 0
    const payload = this.#buffer.subarray(HEADER_LEN, HEADER_LEN + len)
    this.#sink.frame(this.#buffer[0]!, this.#buffer.readUInt16LE(2), payload)
  }

  #greet(): void {
    this.#have = 0
    const bytes = this.#buffer
    const greeting: Hello = {
      version: bytes.readUInt16LE(16),
      window: bytes.readUInt32LE(20),
      nonce: Buffer.from(bytes.subarray(24, 24 + NONCE_LEN)),
    }
    if (this.#greetingLen === HELLO_LEN) this.#sink.greeted(greeting)
    else this.#sink.greeted({ ...greeting, maxPorts: bytes.readUInt16LE(18), tag: bytes.readUInt32LE(40) })
  }

  #break(reason: string): void {
    this.reset()
    this.#sink.broken(reason)
  }
}
