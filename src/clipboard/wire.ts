/**
 * The bytes of spice-vdagent's protocol: VDIChunkHeader, VDAgentMessage and the clipboard messages in them, little-endian.
 * What the guest sends is checked here; agent.ts keeps the conversation.
 *
 * Chunks are a matter of one side: vdagentd drops the connection over a chunk of more than 2048 bytes, and sends its own
 * messages in one chunk of any size. A message may span chunks, and a chunk may end anywhere.
 */

import { PeerFault } from '../errors.ts'

export const CHUNK_MAX = 2048
const CHUNK_HEADER = 8
const MESSAGE_HEADER = 20
const PROTOCOL = 1
/** VDP_CLIENT_PORT; the other one (2) is between vdagentd and a SPICE server. */
const CLIENT_PORT = 1
/** Of a message that is not the clipboard's: the largest in use has some hundred bytes. */
const OTHER_MAX = 64 << 10
const TYPES_MAX = 32

export const MESSAGE = { clipboard: 4, capabilities: 6, grab: 7, request: 8, release: 9, maxClipboard: 14 } as const

/** Bits of the capabilities. */
export const CAPABILITY = {
  byDemand: 5,
  selection: 6,
  lineEndCrlf: 9,
  maxClipboard: 10,
  noReleaseOnRegrab: 16,
  grabSerial: 17,
} as const

export const SELECTIONS = ['clipboard', 'primary'] as const
export type Selection = (typeof SELECTIONS)[number]

/** Numbers of VD_AGENT_CLIPBOARD_*; 0 is none, 6 a list of files (which needs WebDAV). */
export const MIME_TYPES = ['text/plain;charset=utf-8', 'image/png', 'image/bmp', 'image/tiff', 'image/jpeg'] as const
export type MimeType = (typeof MIME_TYPES)[number]

export function typeNumber(type: MimeType): number {
  return MIME_TYPES.indexOf(type) + 1
}

/** What both sides have agreed on: how the clipboard's messages look. */
export interface Dialect {
  selection: boolean
  serial: boolean
}

export interface Message {
  type: number
  data: Buffer
  /** The message was this long, and only its beginning was kept. */
  cut: boolean
}

export type ClipboardMessage =
  | { what: 'grab'; selection: Selection; serial: number | undefined; types: MimeType[] }
  | { what: 'request'; selection: Selection; type: MimeType; number: number }
  | { what: 'data'; selection: Selection; number: number; bytes: Buffer; cut: boolean }
  | { what: 'release'; selection: Selection }

/** Puts messages together. Holds at most one, and of that no more than `limit` bytes and a little. */
export class MessageReader {
  readonly #clipboardMax: number
  readonly #header: Buffer = Buffer.alloc(MESSAGE_HEADER)
  #chunkHeader: Buffer = Buffer.alloc(CHUNK_HEADER)
  #chunkHeaderLen = 0
  #chunkLeft = 0
  #skip = false
  #headerLen = 0
  #data: Buffer = Buffer.alloc(0)
  #kept = 0
  #left = 0

  /** `limit`: the largest content of a clipboard. */
  constructor(limit: number) {
    this.#clipboardMax = limit + 64
  }

  /** Whether a message has begun and not ended. */
  get midway(): boolean {
    return this.#chunkHeaderLen > 0 || this.#chunkLeft > 0 || this.#headerLen > 0
  }

  /** Throws a PeerFault where the bytes cannot be this protocol; the reader is of no use afterwards. */
  push(bytes: Buffer, take: (message: Message) => void): void {
    let rest = bytes
    while (rest.length > 0) {
      if (this.#chunkLeft === 0) {
        rest = this.#takeChunkHeader(rest)
        continue
      }
      const part = rest.subarray(0, this.#chunkLeft)
      this.#chunkLeft -= part.length
      rest = rest.subarray(part.length)
      if (!this.#skip) this.#takePayload(part, take)
    }
  }

  #takeChunkHeader(bytes: Buffer): Buffer {
    const copied = bytes.copy(this.#chunkHeader, this.#chunkHeaderLen, 0, CHUNK_HEADER - this.#chunkHeaderLen)
    this.#chunkHeaderLen += copied
    if (this.#chunkHeaderLen === CHUNK_HEADER) {
      this.#chunkHeaderLen = 0
      const port = this.#chunkHeader.readUInt32LE(0)
      if (port !== CLIENT_PORT && port !== 2) throw new PeerFault(`a chunk for port ${port}: this is no spice-vdagent`)
      this.#skip = port !== CLIENT_PORT
      this.#chunkLeft = this.#chunkHeader.readUInt32LE(4)
    }
    return bytes.subarray(copied)
  }

  #takePayload(bytes: Buffer, take: (message: Message) => void): void {
    let rest = bytes
    while (rest.length > 0) {
      if (this.#headerLen < MESSAGE_HEADER) {
        const copied = rest.copy(this.#header, this.#headerLen, 0)
        this.#headerLen += copied
        rest = rest.subarray(copied)
        if (this.#headerLen < MESSAGE_HEADER) return
        const protocol = this.#header.readUInt32LE(0)
        if (protocol !== PROTOCOL) throw new PeerFault(`a message of protocol ${protocol}, expected ${PROTOCOL}`)
        this.#left = this.#header.readUInt32LE(16)
      }
      const part = rest.subarray(0, this.#left)
      const type = this.#header.readUInt32LE(4)
      const room = (type === MESSAGE.clipboard ? this.#clipboardMax : OTHER_MAX) - this.#kept
      this.#keep(part.subarray(0, Math.max(0, room)))
      this.#left -= part.length
      rest = rest.subarray(part.length)
      if (this.#left === 0) this.#finish(type, take)
    }
  }

  /** Into one buffer that grows: a list of pieces would cost a hundred times their length where they have one byte each. */
  #keep(bytes: Buffer): void {
    const len = this.#kept + bytes.length
    if (len > this.#data.length) {
      const larger = Buffer.alloc(Math.max(len, Math.min(2 * this.#data.length, this.#kept + this.#left), 256))
      this.#data.copy(larger, 0, 0, this.#kept)
      this.#data = larger
    }
    bytes.copy(this.#data, this.#kept)
    this.#kept = len
  }

  #finish(type: number, take: (message: Message) => void): void {
    const data = this.#data.subarray(0, this.#kept)
    const cut = this.#header.readUInt32LE(16) > data.length
    this.#data = Buffer.alloc(0)
    this.#kept = 0
    this.#headerLen = 0
    take({ type, data, cut })
  }
}

/** A message in chunks, one after the other, so that a large one need not be copied as a whole. */
export function* chunks(type: number, ...data: readonly Uint8Array[]): Generator<Buffer> {
  const len = data.reduce((sum, part) => sum + part.length, 0)
  const header = Buffer.alloc(MESSAGE_HEADER)
  header.writeUInt32LE(PROTOCOL, 0)
  header.writeUInt32LE(type, 4)
  header.writeUInt32LE(len, 16)
  let left = MESSAGE_HEADER + len
  let chunk = Buffer.alloc(0)
  let at = 0
  for (const part of [header, ...data])
    for (let from = 0; from < part.length;) {
      if (at === chunk.length) {
        const size = Math.min(left, CHUNK_MAX)
        chunk = Buffer.alloc(CHUNK_HEADER + size)
        chunk.writeUInt32LE(CLIENT_PORT, 0)
        chunk.writeUInt32LE(size, 4)
        at = CHUNK_HEADER
      }
      const slice = part.subarray(from, from + chunk.length - at)
      chunk.set(slice, at)
      from += slice.length
      at += slice.length
      left -= slice.length
      if (at === chunk.length) yield chunk
    }
}

export function encodeCapabilities(request: boolean, bits: readonly number[]): Buffer {
  const word = bits.reduce((sum, bit) => sum | (1 << bit), 0)
  return words(request ? 1 : 0, word)
}

export function decodeCapabilities(data: Buffer): { request: boolean; has: (bit: number) => boolean } {
  if (data.length < 8) throw new PeerFault(`capabilities of ${data.length} bytes, expected at least 8`)
  const caps = data.readUInt32LE(4)
  return { request: data.readUInt32LE(0) !== 0, has: (bit) => (caps & (1 << bit)) !== 0 }
}

export function encodeGrab(dialect: Dialect, selection: Selection, serial: number, types: readonly MimeType[]): Buffer {
  const head = dialect.serial ? words(serial) : Buffer.alloc(0)
  return Buffer.concat([prefix(dialect, selection), head, words(...types.map(typeNumber))])
}

/** The head of REQUEST (all of it) and of CLIPBOARD (the bytes follow). */
export function encodeTyped(dialect: Dialect, selection: Selection, number: number): Buffer {
  return Buffer.concat([prefix(dialect, selection), words(number)])
}

export function encodeRelease(dialect: Dialect, selection: Selection): Buffer {
  return prefix(dialect, selection)
}

/** Undefined for messages that are none of the clipboard's, or about a selection that nobody here has (SECONDARY). */
export function decodeClipboard(dialect: Dialect, { type, data, cut }: Message): ClipboardMessage | undefined {
  if (type < MESSAGE.clipboard || type > MESSAGE.release || type === 5 || type === MESSAGE.capabilities)
    return undefined
  const head = dialect.selection ? 4 : 0
  if (data.length < head) throw new PeerFault(`clipboard message ${type} has no selection`)
  const selection = dialect.selection ? SELECTIONS[data[0]!] : 'clipboard'
  if (selection === undefined) return undefined
  const body = data.subarray(head)
  if (type === MESSAGE.release) return { what: 'release', selection }
  if (type === MESSAGE.grab) return decodeGrab(dialect, selection, body)
  if (body.length < 4) throw new PeerFault(`clipboard message ${type} of ${data.length} bytes has no type`)
  const number = body.readUInt32LE(0)
  if (type === MESSAGE.clipboard) return { what: 'data', selection, number, bytes: body.subarray(4), cut }
  return { what: 'request', selection, type: MIME_TYPES[number - 1] ?? MIME_TYPES[0], number }
}

function decodeGrab(dialect: Dialect, selection: Selection, body: Buffer): ClipboardMessage {
  const from = dialect.serial ? 4 : 0
  if (body.length < from) throw new PeerFault('a grab has no serial')
  const types = new Set<MimeType>()
  for (let at = from; at + 4 <= Math.min(body.length, from + 4 * TYPES_MAX); at += 4) {
    const type = MIME_TYPES[body.readUInt32LE(at) - 1]
    if (type !== undefined) types.add(type)
  }
  return { what: 'grab', selection, serial: dialect.serial ? body.readUInt32LE(0) : undefined, types: [...types] }
}

function prefix(dialect: Dialect, selection: Selection): Buffer {
  return dialect.selection ? Buffer.from([SELECTIONS.indexOf(selection), 0, 0, 0]) : Buffer.alloc(0)
}

function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, 4 * i)
  return bytes
}
