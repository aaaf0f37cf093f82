/** The bytes of spice-vdagent: cut anywhere, too large, or nonsense; what is held stays bounded. */

import { describe, expect, it } from 'vitest'
import {
  CHUNK_MAX,
  chunks,
  decodeCapabilities,
  decodeClipboard,
  encodeCapabilities,
  encodeGrab,
  encodeRelease,
  encodeTyped,
  MESSAGE,
  MessageReader,
  MIME_TYPES,
  type Dialect,
  type Message,
} from '../../src/clipboard/wire.ts'
import { PeerFault } from '../../src/errors.ts'
import { Random } from '../../fuzz/random.ts'

const NEW: Dialect = { selection: true, serial: true }
const OLD: Dialect = { selection: false, serial: false }
const LIMIT = 10_000

function read(bytes: Buffer, size = bytes.length, limit = LIMIT): Message[] {
  const reader = new MessageReader(limit)
  const messages: Message[] = []
  for (let at = 0; at < bytes.length; at += size)
    reader.push(bytes.subarray(at, at + size), (m) => messages.push({ ...m, data: Buffer.from(m.data) }))
  expect(reader.midway).toBe(false)
  return messages
}

const message = (type: number, ...data: Uint8Array[]): Buffer => Buffer.concat([...chunks(type, ...data)])

describe('messages in chunks', () => {
  it.each([1, 2, 7, 19, 2047, 2048, 2056, 100_000])('are put together, read %i bytes at a time', (size) => {
    const text = Buffer.from('ü'.repeat(4000))
    const sent = [
      message(MESSAGE.capabilities, encodeCapabilities(true, [5, 6, 17])),
      message(MESSAGE.clipboard, encodeTyped(NEW, 'primary', 1), text),
      message(MESSAGE.release, encodeRelease(NEW, 'clipboard')),
    ]
    const [caps, data, release] = read(Buffer.concat(sent), size)
    expect(decodeCapabilities(caps!.data).request).toBe(true)
    expect([5, 6, 9, 17].map(decodeCapabilities(caps!.data).has)).toEqual([true, true, false, true])
    expect(decodeClipboard(NEW, data!)).toEqual({
      what: 'data',
      selection: 'primary',
      number: 1,
      bytes: text,
      cut: false,
    })
    expect(decodeClipboard(NEW, release!)).toEqual({ what: 'release', selection: 'clipboard' })
  })

  it.each([0, 1, 2000, 2028, 2029, 5000])('are never longer than vdagentd takes, with %i bytes of content', (len) => {
    const all = [...chunks(MESSAGE.clipboard, encodeTyped(NEW, 'clipboard', 2), Buffer.alloc(len, 'x'))]
    for (const chunk of all) {
      expect(chunk.readUInt32LE(4)).toBe(chunk.length - 8)
      expect(chunk.length - 8).toBeLessThanOrEqual(CHUNK_MAX)
    }
    expect(read(Buffer.concat(all))[0]!.data.length).toBe(8 + len)
  })

  it('a content beyond the limit is cut, said to be, and the next message is whole', () => {
    const large = message(MESSAGE.clipboard, encodeTyped(NEW, 'clipboard', 1), Buffer.alloc(LIMIT * 3))
    const [cut, next] = read(Buffer.concat([large, message(MESSAGE.release, encodeRelease(NEW, 'primary'))]), 777)
    expect(cut!.cut).toBe(true)
    expect(cut!.data.length).toBeLessThanOrEqual(LIMIT + 64)
    expect(decodeClipboard(NEW, next!)).toEqual({ what: 'release', selection: 'primary' })
  })

  it('a length of 4 GiB costs nothing before its bytes come', () => {
    const begun = message(MESSAGE.clipboard, encodeTyped(NEW, 'clipboard', 1))
    begun.writeUInt32LE(0xffff_ffff, 4)
    begun.writeUInt32LE(0xffff_ffff, 8 + 16)
    const reader = new MessageReader(LIMIT)
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 1000; i++) reader.push(i === 0 ? begun : Buffer.alloc(1000), () => expect.unreachable())
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 << 20)
    expect(reader.midway).toBe(true)
  })

  it('what is meant for a SPICE server is passed over; other ports and protocols are none', () => {
    const other = message(MESSAGE.release, encodeRelease(NEW, 'primary'))
    other.writeUInt32LE(2, 0)
    expect(read(Buffer.concat([other, message(MESSAGE.release, encodeRelease(NEW, 'primary'))]))).toHaveLength(1)
    other.writeUInt32LE(7, 0)
    expect(() => read(other)).toThrow(PeerFault)
    const protocol = message(MESSAGE.release, encodeRelease(NEW, 'primary'))
    protocol.writeUInt32LE(9, 8)
    expect(() => read(protocol)).toThrow(/protocol 9/)
  })
})

describe('clipboard messages', () => {
  it.each([
    ['both', NEW],
    ['neither', OLD],
    ['a selection', { selection: true, serial: false }],
  ] as const)('read as they were written, with %s', (_, dialect) => {
    const grab = encodeGrab(dialect, 'clipboard', 5, ['image/png', MIME_TYPES[0]])
    expect(decodeClipboard(dialect, { type: MESSAGE.grab, data: grab, cut: false })).toEqual({
      what: 'grab',
      selection: 'clipboard',
      serial: dialect.serial ? 5 : undefined,
      types: ['image/png', MIME_TYPES[0]],
    })
    const request = encodeTyped(dialect, 'clipboard', 2)
    expect(decodeClipboard(dialect, { type: MESSAGE.request, data: request, cut: false })).toEqual({
      what: 'request',
      selection: 'clipboard',
      type: 'image/png',
      number: 2,
    })
  })

  it('a selection that nobody has, types that nobody knows, and a grab of a thousand types', () => {
    const secondary = Buffer.from([2, 0, 0, 0])
    expect(decodeClipboard(NEW, { type: MESSAGE.release, data: secondary, cut: false })).toBeUndefined()
    const types = Buffer.alloc(4000, 0xff)
    const decoded = decodeClipboard(OLD, { type: MESSAGE.grab, data: types, cut: false })
    expect(decoded).toMatchObject({ what: 'grab', types: [] })
  })

  it('random bytes are understood or a fault, never anything else', () => {
    const r = new Random(1)
    for (let i = 0; i < 3000; i++) {
      const reader = new MessageReader(LIMIT)
      const bytes = Buffer.from(r.bytes(r.below(200)))
      if (r.chance(80) && bytes.length > 36) {
        bytes.writeUInt32LE(1, 0)
        bytes.writeUInt32LE(bytes.length - 8, 4)
        bytes.writeUInt32LE(1, 8)
        bytes.writeUInt32LE(r.below(16), 12)
        bytes.writeUInt32LE(r.below(bytes.length), 24)
      }
      try {
        reader.push(bytes, (m) => {
          decodeClipboard(r.chance(50) ? NEW : OLD, m)
          if (m.type === MESSAGE.capabilities) decodeCapabilities(m.data)
        })
      } catch (error) {
        expect(error).toBeInstanceOf(PeerFault)
      }
    }
  })
})
