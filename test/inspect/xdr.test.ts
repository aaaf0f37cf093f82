/** XDR and libguestfs's messages: what is written, and what is refused. */
import { describe, expect, it } from 'vitest'
import fc from 'fast-check'
import { PeerFault } from '../../src/errors.ts'
import { CHUNK_MAX, checkLength, decodeChunk, decodeReply, encodeCall, MESSAGE_MAX } from '../../src/inspect/wire.ts'
import { XdrReader, XdrWriter } from '../../src/inspect/xdr.ts'

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')

describe('XDR', () => {
  it('writes words big-endian and pads strings to four bytes (RFC 4506 §4)', () => {
    const bytes = new XdrWriter().uint32(1).string('abcde').bool(true).uint64(2n).opaque(Buffer.of(9)).bytes()
    expect(bytes).toEqual(hex('00000001 00000005 6162636465000000 00000001 0000000000000002 00000001 09000000'))
  })

  it('reads what it wrote', () => {
    const items = fc.array(fc.string({ unit: 'binary' }), { maxLength: 20 })
    fc.assert(
      fc.property(items, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (list, number) => {
        const writer = new XdrWriter().uint64(number).uint32(list.length)
        for (const text of list) writer.string(text)
        const reader = new XdrReader(writer.bytes())
        expect(reader.uint64()).toBe(number)
        // A lone surrogate has no UTF-8.
        expect(reader.strings()).toEqual(list.map((text) => Buffer.from(text).toString()))
        reader.end()
      }),
    )
  })

  it.each<[string, string, (reader: XdrReader) => unknown]>([
    ['a string longer than the message', '7fffffff 61616161', (reader) => reader.string()],
    ['a string of more than it may have', '00000005 6161616161000000', (reader) => reader.string(4)],
    ['a string without its padding', '00000005 6161616161', (reader) => reader.string()],
    ['a list that cannot be that long', '40000000 00000000 00000000', (reader) => reader.strings()],
    ['a table with a key alone', '00000001 00000001 61000000', (reader) => reader.table()],
    ['a boolean of 2', '00000002', (reader) => reader.bool()],
    ['a word cut off', '0000', (reader) => reader.uint32()],
    ['bytes left over', '00000000 00000000', (reader) => (reader.uint32(), reader.end())],
  ])('refuses %s', (_, bytes, read) => {
    expect(() => read(new XdrReader(hex(bytes)))).toThrow(PeerFault)
  })
})

describe('messages', () => {
  it('a call has the header of guestfs-internals(1)', () => {
    const args = new XdrWriter().string('/').bytes()
    expect(encodeCall(67, 0x123400, args)).toEqual(
      hex(
        `00000030 2000f5f5 00000004 00000043 00000000 00123400
           0000000000000000 0000000000000000 00000000 00000001 2f000000`.replaceAll(/\s/g, ''),
      ),
    )
  })

  const reply = (changes: Record<number, number> = {}, tail: Uint8Array = Buffer.alloc(0)): Buffer => {
    const words = [0x2000f5f5, 4, 67, 1, 7, 0, 0, 0, 0, 0]
    for (const [at, value] of Object.entries(changes)) words[Number(at)] = value
    const writer = new XdrWriter()
    for (const word of words) writer.uint32(word)
    return Buffer.concat([writer.bytes(), tail])
  }

  it('a reply brings its result, or an error', () => {
    expect(decodeReply(reply())).toMatchObject({ proc: 67, serial: 7, error: undefined })
    const error = new XdrWriter().string('ENOENT').string('no such file').bytes()
    expect(decodeReply(reply({ 9: 1 }, error)).error).toEqual({ errno: 'ENOENT', message: 'no such file' })
  })

  it.each([
    ['another program', { 0: 1 }],
    ['another version', { 1: 5 }],
    ['a call', { 3: 0 }],
    ['a status that is none', { 9: 2 }],
    ['an error without a text', { 9: 1 }],
  ])('refuses %s as a reply', (_, changes) => {
    expect(() => decodeReply(reply(changes))).toThrow(PeerFault)
  })

  it('bounds messages, chunks and the errors in them', () => {
    expect(() => checkLength(MESSAGE_MAX, 'message')).not.toThrow()
    expect(() => checkLength(MESSAGE_MAX + 1, 'message')).toThrow(PeerFault)
    expect(() => checkLength(CHUNK_MAX + 9, 'chunk')).toThrow(PeerFault)
    const long = new XdrWriter().string('').string('x'.repeat(70_000)).bytes()
    expect(() => decodeReply(reply({ 9: 1 }, long))).toThrow(PeerFault)
  })

  it('chunks: data, the end, a cancellation, too much', () => {
    const chunk = (cancel: number, data: Uint8Array): Buffer => new XdrWriter().uint32(cancel).opaque(data).bytes()
    expect(decodeChunk(chunk(0, Buffer.from('abc')))).toEqual({ cancelled: false, data: Buffer.from('abc') })
    expect(decodeChunk(chunk(0, Buffer.alloc(0))).data).toHaveLength(0)
    expect(decodeChunk(chunk(1, Buffer.alloc(0))).cancelled).toBe(true)
    expect(() => decodeChunk(chunk(0, Buffer.alloc(CHUNK_MAX + 4)))).toThrow(PeerFault)
    expect(() => decodeChunk(Buffer.concat([chunk(0, Buffer.of(1)), Buffer.alloc(4)]))).toThrow(PeerFault)
  })
})
