/**
 * A program in the guest that writes anything into the connection of user networking: greetings by the hundred, frames
 * of every kind, cut and padded, to a device with few ports or many. Nothing throws, no turn of the event loop is long,
 * and a guest end that greets afterwards gets every port that is there.
 */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ConsoleDevice } from '../src/device/console.ts'
import {
  encodeFrame,
  encodeHello,
  FRAME,
  FrameReader,
  NONCE_LEN,
  PAD_LEN,
  VERSION,
  type Welcome,
} from '../src/usernet/frame.ts'
import { UsernetServer } from '../src/usernet/host-end.ts'
import { MemoryChardev } from '../test/support/memory-chardev.ts'
import { PORT_DEFAULTS } from '../test/support/pair.ts'
import { Random } from './random.ts'
import type { FuzzSession, FuzzTarget } from './target.ts'

const STEPS = 25
const PORTS = 5
/** Most devices have 31; 511 is the most there can be. */
const MAX_PORTS = [PORTS, 31, 31, 511]
const WINDOW = 65_536
const ANSWER_MS = 10_000

interface Host {
  device: ConsoleDevice
  server: UsernetServer
  path: string
}

async function start(): Promise<FuzzSession> {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-fuzz-'))
  const errors: string[] = []
  const log = { error: (text: string) => void errors.push(text), warn() {}, info() {}, debug() {} }
  const hosts = new Map<number, Host>()
  const host = (maxPorts: number): Host => {
    let one = hosts.get(maxPorts)
    if (!one) {
      const path = join(folder, `${maxPorts}.sock`)
      const device = new ConsoleDevice({ maxPorts, defer: setImmediate })
      hosts.set(maxPorts, (one = { device, path, server: new UsernetServer({ path, device, log }) }))
    }
    return one
  }
  for (const maxPorts of MAX_PORTS) host(maxPorts)
  return {
    async episode(seed) {
      const r = new Random(seed)
      errors.length = 0
      const { device, path, server } = host(r.pick(MAX_PORTS))
      const guest = await Guest.connect(path)
      try {
        for (let i = 0; i < STEPS && !r.ended; i++) {
          r.step()
          await step(r, guest, device)
        }
        guest.socket.resume()
        await guest.greet(device)
        const there = device.ports.map(({ id }) => id)
        assert.deepEqual(new Set(guest.ports), new Set(there), 'a guest end is told of other ports than there are')
        assert.deepEqual(
          errors.filter((text) => !text.includes('was cut off')),
          [],
        )
      } finally {
        guest.socket.destroy()
        while (server.attached) await sleep(1)
        for (const { id } of [...device.ports]) device.removePort(id)
      }
      return STEPS
    },
    close() {
      for (const { device, server } of hosts.values()) {
        server.close()
        device.close()
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function step(r: Random, guest: Guest, device: ConsoleDevice): Promise<void> {
  const { socket } = guest
  switch (r.below(8)) {
    case 0: {
      const id = 1 + r.below(PORTS - 1)
      if (device.port(id)) device.removePort(id)
      else
        await device.addPort(
          { ...PORT_DEFAULTS, id, name: `port.${id}` },
          async (end) => new MemoryChardev(end, r.chance(50)),
        )
      return
    }
    case 1:
      socket.pause()
      return
    case 2:
      socket.resume()
      return
    case 3:
      await sleep(r.below(3))
      return
    case 4: {
      // Greetings, one behind the other.
      const greeting = hello(r)
      socket.write(Buffer.concat(Array.from({ length: 1 + r.below(r.pick([2, 50, 400])) }, () => greeting)))
      return
    }
    case 5:
      socket.write(Buffer.alloc(r.pick([1, 12, PAD_LEN])))
      return
    default: {
      const frames = Array.from({ length: 1 + r.below(4) }, () => frame(r, guest.tag))
      const bytes = Buffer.concat(Array.from({ length: 1 + r.below(r.pick([1, 1, 200])) }, () => frames).flat())
      socket.write(r.chance(85) ? bytes : bytes.subarray(0, r.below(bytes.length)))
    }
  }
}

function hello(r: Random): Buffer {
  const window = r.chance(90) ? WINDOW : r.pick([0, 1024, 16 << 20, 0xffff_ffff])
  return encodeHello({ version: r.chance(95) ? VERSION : r.below(9), window, nonce: Buffer.from(r.bytes(NONCE_LEN)) })
}

function frame(r: Random, tag: number): Buffer {
  const type = r.chance(90) ? r.pick([1, 2, 3, 7, 7, 8, 8, 9, 9]) : r.below(256)
  const usual =
    type === FRAME.OPEN
      ? Uint8Array.of(r.below(3))
      : type === FRAME.CREDIT
        ? r.bytes(4)
        : r.bytes(r.pick([0, 1, 100, 30_000]))
  const bytes = encodeFrame(
    type,
    r.chance(90) ? 1 + r.below(8) : r.below(65_536),
    r.chance(90) ? usual : r.bytes(r.below(9)),
    tag,
  )
  if (r.chance(3)) bytes.writeUInt32LE(r.pick([0, 32_768, 32_769, 0xffff_ffff]), 4)
  return bytes
}

/** A guest end that reads: which ports it was told of. */
class Guest {
  readonly socket: Socket
  tag = 0x01010101
  ports: number[] = []
  readonly #channels = new Map<number, number>()
  #nonce: Buffer | undefined
  #welcome: (() => void) | undefined
  #told: (() => void) | undefined
  readonly #reader: FrameReader

  static async connect(path: string): Promise<Guest> {
    const socket = createConnection(path)
    await once(socket, 'connect')
    return new Guest(socket)
  }

  private constructor(socket: Socket) {
    this.socket = socket
    this.#reader = new FrameReader('guest', {
      greeted: (greeting) => {
        const { tag, nonce } = greeting as Welcome
        this.tag = tag
        this.#reader.expect(tag)
        this.#channels.clear()
        this.ports = []
        if (this.#nonce?.equals(nonce)) this.#welcome?.()
      },
      frame: (type, channel, payload) => {
        if (type === FRAME.ADD) this.#channels.set(channel, payload.readUInt16LE(0))
        else if (type === FRAME.REMOVE) this.#channels.delete(channel)
        else if (type === FRAME.PONG) this.#told?.()
        this.ports = [...this.#channels.values()]
      },
      broken: () => {},
    })
    socket.on('error', () => {})
    socket.on('data', (bytes: Buffer) => this.#reader.push(bytes))
  }

  /** A new start, and then all that it is told until a PING is answered behind the ports. */
  async greet(device: ConsoleDevice): Promise<void> {
    this.socket.write(Buffer.alloc(PAD_LEN))
    this.#nonce = Buffer.from('a guest that ends')
    this.#nonce = this.#nonce.subarray(0, NONCE_LEN)
    const welcome = new Promise<void>((resolve) => (this.#welcome = resolve))
    this.socket.write(encodeHello({ version: VERSION, window: WINDOW, nonce: this.#nonce }))
    await inTime(welcome, 'no WELCOME')
    const wanted = device.ports.length
    for (const end = performance.now() + ANSWER_MS; this.ports.length !== wanted; await sleep(1))
      if (performance.now() > end) return
    const told = new Promise<void>((resolve) => (this.#told = resolve))
    this.socket.write(encodeFrame(FRAME.PING, 0, new Uint8Array(0), this.tag))
    await inTime(told, 'no PONG')
  }
}

async function inTime(work: Promise<void>, what: string): Promise<void> {
  const late = new AbortController()
  const timer = sleep(ANSWER_MS, undefined, { signal: late.signal }).then(
    () => assert.fail(`${what} within ${ANSWER_MS / 1000} s`),
    () => {},
  )
  await Promise.race([work, timer])
  late.abort()
}

export const USERNET: FuzzTarget = {
  name: 'usernet',
  title: 'guest programs on the connection of user networking',
  start,
}
