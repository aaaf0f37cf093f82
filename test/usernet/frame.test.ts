/** Frames in any pieces, with anything between them. */
import { expect, it } from 'vitest'
import { Random } from '../../fuzz/random.ts'
import {
  DATA_MAX,
  encodeFrame,
  encodeHello,
  encodeWelcome,
  FRAME,
  FrameReader,
  makeTag,
  PAD_LEN,
  VERSION,
  type Hello,
  type Welcome,
} from '../../src/usernet/frame.ts'

interface Heard {
  reader: FrameReader
  said: string[]
}

/** A reader of the host's end that goes on with `tag` after each greeting. */
function listen(tag: number): Heard {
  const said: string[] = []
  const reader: FrameReader = new FrameReader('host', {
    greeted: ({ nonce }) => {
      said.push(`hello ${nonce.toString('hex')}`)
      reader.expect(tag)
    },
    frame: (type, channel, payload) => void said.push(`${type} ${channel} ${Buffer.from(payload).toString('hex')}`),
    broken: (reason) => void said.push(`broken: ${reason}`),
  })
  return { reader, said }
}

function pushInPieces(reader: FrameReader, stream: Buffer, random: Random, most: number): void {
  for (let at = 0; at < stream.length;) {
    const len = 1 + random.below(most)
    reader.push(stream.subarray(at, at + len))
    at += len
  }
}

it('a greeting is the same there and back', () => {
  const hello: Hello = { version: 7, window: 123_456, nonce: Buffer.from(new Random(1).bytes(16)) }
  const welcome: Welcome = { ...hello, maxPorts: 511, tag: makeTag(0) }
  const got: unknown[] = []
  for (const [end, bytes] of [
    ['host', encodeHello(hello)],
    ['guest', encodeWelcome(welcome)],
  ] as const) {
    const sink = {
      greeted: (one: unknown) => void got.push(one),
      frame: () => expect.unreachable(),
      broken: () => expect.unreachable(),
    }
    new FrameReader(end, sink).push(bytes)
  }
  expect(got).toEqual([hello, welcome])
})

it.each([1, 3, 40, 5000, 100_000])('in pieces of up to %i bytes', (most) => {
  const random = new Random(most)
  const tag = makeTag(random.word())
  const { reader, said } = listen(tag)
  const parts: Buffer[] = []
  const expected: string[] = []
  for (let session = 0; session < 3; session++) {
    const nonce = Buffer.from(random.bytes(16))
    parts.push(Buffer.alloc(PAD_LEN), encodeHello({ version: VERSION, window: 1 << 16, nonce }))
    expected.push(`hello ${nonce.toString('hex')}`)
    for (let i = 0; i < 10; i++) {
      const payload = Buffer.from(random.bytes(random.pick([0, 1, 4, 100, DATA_MAX])))
      const [type, channel] = [1 + random.below(9), random.below(0x10000)]
      parts.push(Buffer.alloc(random.below(5)), encodeFrame(type, channel, payload, tag))
      expected.push(`${type} ${channel} ${payload.toString('hex')}`)
    }
  }
  pushInPieces(reader, Buffer.concat(parts), random, most)
  expect(said).toEqual(expected)
})

it('a stream that was cut anywhere gives nothing of the cut frame, and the next session', () => {
  const tag = makeTag(5)
  const nonce = Buffer.alloc(16, 7)
  const hello = encodeHello({ version: VERSION, window: 1 << 16, nonce })
  const before = Buffer.concat([hello, encodeFrame(FRAME.DATA, 1, Buffer.alloc(300, 255), tag)])
  for (let cut = hello.length; cut < before.length; cut++) {
    const { reader, said } = listen(tag)
    reader.push(Buffer.concat([before.subarray(0, cut), Buffer.alloc(PAD_LEN), hello]))
    expect(
      said.filter((one) => !one.startsWith('broken')),
      `cut at ${cut}`,
    ).toEqual([`hello ${nonce.toString('hex')}`, `hello ${nonce.toString('hex')}`])
  }
})

it('bytes that are wrong anywhere are survived, and whatever they are the next greeting counts', () => {
  const random = new Random(42)
  const tag = makeTag(9)
  const nonce = Buffer.alloc(16, 3)
  const hello = encodeHello({ version: VERSION, window: 1 << 16, nonce })
  for (let round = 0; round < 2000; round++) {
    const { reader, said } = listen(tag)
    const frames = Array.from({ length: 5 }, () =>
      encodeFrame(1 + random.below(9), 1, Buffer.from(random.bytes(random.below(60))), tag),
    )
    const stream = Buffer.concat([hello, ...frames])
    for (let wrong = random.below(4); wrong >= 0; wrong--)
      stream[hello.length + random.below(stream.length - hello.length)] = random.word() & 255
    pushInPieces(reader, Buffer.concat([stream, Buffer.alloc(PAD_LEN), hello]), random, 1 + random.below(300))
    expect(said.at(-1), `round ${round}`).toBe(`hello ${nonce.toString('hex')}`)
  }
})
