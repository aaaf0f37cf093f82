/** Exact numbers of bytes out of a stream, however that is cut; what is held follows the bytes, not the chunks. */
import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { ByteReader } from '../../src/inspect/byte-reader.ts'

const nothing = (): Readable => new Readable({ read() {} })
const counted = (len: number): Buffer =>
  Buffer.from(Array.from({ length: len }, (_, at) => (at * 7 + (at >> 8)) & 0xff))

describe('a reader of bytes', () => {
  it('keeps none of the chunks that come: a reply of 1 MiB in chunks of one byte is one buffer', async () => {
    const stream = nothing()
    const reader = new ByteReader(stream)
    const whole = reader.take(1 << 20)
    // Each chunk is the same Buffer: one that was kept would have the byte of the last.
    const chunk = Buffer.alloc(1)
    const bytes = Buffer.alloc(1 << 20)
    for (let at = 0; at < bytes.length; at++) {
      chunk[0] = bytes[at] = (at * 7 + (at >> 8)) & 0xff
      stream.emit('data', chunk)
    }
    expect((await whole).equals(bytes)).toBe(true)
  })

  it.each([1, 2, 3, 5, 4095, 4096, 4097, 70_000])('chunks of %i bytes, taken in other pieces', async (size) => {
    const bytes = counted(Math.min(200_000, 10_000 * size))
    const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) =>
      bytes.subarray(n * size, (n + 1) * size),
    )
    const reader = new ByteReader(Readable.from(pieces, { objectMode: false }))
    const got: Buffer[] = []
    const lengths = [4, 0, 1, 20, 4096, 8193, 3, 65_536]
    for (let at = 0, n = 0; at < bytes.length; n++) {
      const len = Math.min(lengths[n % lengths.length]!, bytes.length - at)
      got.push(await reader.take(len))
      expect(got.at(-1)).toHaveLength(len)
      at += len
    }
    // All of them are still what they were: a piece that was given is not written to again.
    expect(Buffer.concat(got).equals(bytes)).toBe(true)
    await expect(reader.take(1)).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
  })

  it('gives what has come before the end, and then the reason', async () => {
    const stream = nothing()
    const reader = new ByteReader(stream)
    stream.push(counted(10))
    expect(await reader.take(4)).toEqual(counted(10).subarray(0, 4))
    reader.fail(new Error('gone'))
    expect(await reader.take(6)).toEqual(counted(10).subarray(4))
    await expect(reader.take(1)).rejects.toThrow('gone')
  })
})
