/**
 * A program of the guest that floods the host end with one kind of frame, of any kind, or with greetings. Counted is
 * what is acted on in one turn of the event loop, and how often a session is started: each start sets up all queues of
 * the device.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ConsoleDriver } from '../../src/driver/console.ts'
import { encodeFrame, encodeHello, FRAME, FrameReader, NONCE_LEN, VERSION } from '../../src/usernet/frame.ts'
import type { Welcome } from '../../src/usernet/frame.ts'
import { Link } from '../../src/usernet/link.ts'
import { everyTurn, LinkRig, until } from './rig.ts'

/** A turn is worth 512 frames without anything in them. */
const FRAMES_MAX = 520
const FLOOD_LEN = 1 << 20

let rig: LinkRig
let frames = 0
let worst = 0
let starts = 0
let stopCounting = (): void => {}

beforeEach(() => {
  rig = new LinkRig()
  frames = worst = starts = 0
  // oxlint-disable-next-line unbound-method -- called with a link
  const receive = Link.prototype.receive
  vi.spyOn(Link.prototype, 'receive').mockImplementation(function count(this: Link, ...args) {
    worst = Math.max(worst, ++frames)
    return receive.apply(this, args)
  })
  // oxlint-disable-next-line unbound-method -- called with a driver
  const start = ConsoleDriver.prototype.startInTurns
  vi.spyOn(ConsoleDriver.prototype, 'startInTurns').mockImplementation(function count(this: ConsoleDriver, ...args) {
    starts++
    return start.apply(this, args)
  })
  stopCounting = everyTurn(() => (frames = 0))
})
afterEach(() => {
  stopCounting()
  vi.restoreAllMocks()
  rig.close()
})

const hello = (nonce: number): Buffer =>
  encodeHello({ version: VERSION, window: 65_536, nonce: Buffer.alloc(NONCE_LEN, nonce) })

/** Greets, and waits for the answer to the last greeting. */
async function greet(socket: Socket, greetings: Buffer, last: number): Promise<Welcome> {
  let welcome: Welcome | undefined
  const reader = new FrameReader('guest', {
    greeted: (found) => {
      if (found.nonce[0] === last) welcome = found as Welcome
    },
    frame: () => {},
    broken: () => {},
  })
  const read = (chunk: Buffer): void => void reader.push(chunk)
  socket.on('data', read)
  socket.write(greetings)
  await until(() => welcome !== undefined, 'the host end answers')
  socket.off('data', read)
  socket.resume()
  return welcome!
}

describe('a flood of', () => {
  const u32 = (n: number): Buffer => {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(n)
    return bytes
  }
  const floods: Record<string, readonly [type: number, payload: Buffer][]> = {
    PING: [[FRAME.PING, Buffer.alloc(0)]],
    PONG: [[FRAME.PONG, Buffer.alloc(0)]],
    BYE: [[FRAME.BYE, Buffer.alloc(0)]],
    OPEN: [
      [FRAME.OPEN, Buffer.of(1)],
      [FRAME.OPEN, Buffer.of(0)],
    ],
    'CREDIT of nothing': [[FRAME.CREDIT, u32(0)]],
    'CREDIT of one': [[FRAME.CREDIT, u32(1)]],
    'DATA of one byte': [[FRAME.DATA, Buffer.of(7)]],
  }
  it.each(Object.entries(floods))('%s: so many in one turn, and the host goes on', async (name, kinds) => {
    const { chardev } = await rig.host({ name: 'one' })
    for (let i = 0; i < 6; i++) await rig.host()
    const socket = await rig.socket()
    const { tag } = await greet(socket, hello(1), 1)
    // A program has it open, and a host that sends what credit there is for.
    socket.write(encodeFrame(FRAME.OPEN, 1, Uint8Array.of(1), tag))
    chardev.send(new Uint8Array(100_000))
    const round = Buffer.concat(kinds.map(([type, payload]) => encodeFrame(type, 1, payload, tag)))
    // No more data than there is credit for.
    const times = name.startsWith('DATA') ? 60_000 : Math.ceil(FLOOD_LEN / round.length)
    const flood = Buffer.concat(Array<Buffer>(times).fill(round))
    worst = 0
    if (!socket.write(flood)) await once(socket, 'drain')
    let seen = -1
    await until(() => {
      const before = seen
      seen = (Link.prototype.receive as unknown as { mock: { calls: unknown[] } }).mock.calls.length
      return seen === before && seen >= times
    }, 'all of it is read')
    expect(worst).toBeGreaterThan(8)
    expect(worst).toBeLessThan(FRAMES_MAX)
    expect(rig.log.filter((line) => line.includes('cut off'))).toEqual([])
    if (name.startsWith('DATA')) expect(chardev.received.reduce((sum, { length }) => sum + length, 0)).toBe(60_000)
  })

  it('HELLO: the last one counts, and a session is started four times a second at most', async () => {
    await rig.host({ name: 'one' })
    const socket = await rig.socket()
    const began = performance.now()
    const many = Buffer.concat(Array.from({ length: 3000 }, (_, i) => hello(1 + (i % 200))))
    await greet(socket, Buffer.concat([many, hello(250)]), 250)
    for (let i = 0; i < 20; i++) {
      socket.write(many)
      await sleep(20)
    }
    await greet(socket, hello(251), 251)
    const seconds = (performance.now() - began) / 1000
    expect(starts).toBeLessThanOrEqual(2 + 4 * seconds)
    expect(starts).toBeGreaterThanOrEqual(2)
    expect(rig.log.filter((line) => line.includes('has connected')).length).toBeLessThanOrEqual(20)
  })
})
