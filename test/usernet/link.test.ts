/** Host end and guest end together: what a port is over user networking, and what either survives of the other. */
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Pattern } from '../../lab/pattern.ts'
import { WINDOW } from '../../src/usernet/channel.ts'
import {
  ADD_CONSOLE,
  DATA_MAX,
  encodeFrame,
  encodeHello,
  encodeWelcome,
  FRAME,
  FrameReader,
  PAD_LEN,
  VERSION,
  type Hello,
  type Welcome,
} from '../../src/usernet/frame.ts'
import { GuestEnd } from '../../src/usernet/guest-end.ts'
import type { Socket } from 'node:net'
import { Random } from '../../fuzz/random.ts'
import { LinkRig, program, until } from './rig.ts'

let rig: LinkRig
beforeEach(() => {
  rig = new LinkRig()
})
afterEach(() => rig.close())

const MIB = 1 << 20
const bytesOf = (chardev: { received: Uint8Array[] }): Buffer => Buffer.concat(chardev.received)

describe('two ends', () => {
  it('the guest has the ports with number, name, kind', async () => {
    await rig.host({ name: 'org.example.0' })
    await rig.host({ id: 7 })
    await rig.host({ console: true, policy: 'drop-oldest' })
    const end = await rig.guest()
    await until(() => end.driver!.ports.length === 3, 'three ports')
    await until(() => end.driver!.port(0)!.console, 'the console')
    await until(() => end.driver!.port(1)!.name === 'org.example.0', 'the name')
    expect(end.driver!.port(7)!.name).toBeUndefined()
    expect(end.driver!.maxPorts).toBe(31)
  })

  it('ports come, go and come again while it runs', async () => {
    const end = await rig.guest()
    for (let round = 0; round < 3; round++) {
      const { chardev, port } = await rig.host({ name: `n${round}` })
      const { chardev: own } = await program(end, port.id)
      await until(() => end.driver!.port(1)!.name === `n${round}`, 'the name')
      chardev.send('hello')
      await until(() => own.text === 'hello', 'bytes')
      rig.device.removePort(port.id)
      await until(() => own.closed && end.driver!.port(1) === undefined, 'gone')
    }
  })

  it('moves bytes both ways at once, exactly, more than any window', async () => {
    const ports = [await rig.host(), await rig.host()]
    const end = await rig.guest()
    const programs = [await program(end, 1), await program(end, 2)]
    const sent = [1, 2, 3, 4].map((seed) => Buffer.from(new Pattern(seed).take(3 * MIB + seed)))
    for (const at of [0, 1]) {
      ports[at]!.chardev.send(sent[at]!)
      programs[at]!.chardev.send(sent[at + 2]!)
    }
    for (const at of [0, 1]) {
      await until(() => bytesOf(programs[at]!.chardev).length >= sent[at]!.length, 'to the guest')
      await until(() => bytesOf(ports[at]!.chardev).length >= sent[at + 2]!.length, 'to the host')
      expect(bytesOf(programs[at]!.chardev).equals(sent[at]!)).toBe(true)
      expect(bytesOf(ports[at]!.chardev).equals(sent[at + 2]!)).toBe(true)
      expect(ports[at]!.port.stats()).toMatchObject({
        guestToHostBytes: sent[at + 2]!.length,
        hostToGuestBytes: sent[at]!.length,
        guestToHostDropped: 0,
      })
    }
  })

  it('each side hears when the other opens and closes', async () => {
    const { port, chardev } = await rig.host({}, false)
    const end = await rig.guest()
    const { port: mine, chardev: own } = await program(end, 1, false)
    expect(mine.hostOpen).toBe(false)
    for (let round = 0; round < 2; round++) {
      chardev.setConnected(true)
      await until(() => mine.hostOpen, 'host open')
      own.setConnected(true)
      await until(() => port.guestOpen, 'guest open')
      own.setConnected(false)
      await until(() => !port.guestOpen, 'guest closed')
      chardev.setConnected(false)
      await until(() => !mine.hostOpen, 'host closed')
    }
    expect(port.counters).toMatchObject({ guestOpens: 2, guestCloses: 2 })
  })

  it('the last words of the host come before its end', async () => {
    const { chardev } = await rig.host()
    const end = await rig.guest()
    const { port, chardev: own } = await program(end, 1)
    own.room = 0
    const words = Buffer.from(new Pattern(5).take(WINDOW / 2))
    chardev.send(words)
    await until(() => chardev.waiting === 0, 'all of it is on its way')
    chardev.setConnected(false)
    await until(() => !port.hostOpen, 'host closed')
    // All of them are in the ring: none comes behind the end.
    own.setRoom(Infinity)
    expect(bytesOf(own).equals(words)).toBe(true)
  })

  it('keeps what the host sends until a program opens the port', async () => {
    const { chardev } = await rig.host()
    chardev.send('early')
    const end = await rig.guest()
    const { chardev: own } = await program(end, 1, false)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(own.text).toBe('')
    own.setConnected(true)
    await until(() => own.text === 'early', 'what came before')
  })

  it('a host that does not read holds up its own port, within the window, and no other', async () => {
    const { chardev, port } = await rig.host()
    const other = await rig.host()
    chardev.room = 0
    const end = await rig.guest()
    const { chardev: own } = await program(end, 1)
    const { chardev: free } = await program(end, 2)
    const sent = Buffer.from(new Pattern(9).take(8 * MIB))
    own.send(sent)
    for (let round = 0; round < 5; round++) {
      free.send('ping')
      await until(() => other.chardev.text.length === 4 * (round + 1), 'the other port goes on')
    }
    expect(own.waiting).toBeGreaterThan(5 * MIB)
    expect(port.counters.guestToHostBytes).toBe(0)
    chardev.setRoom(Infinity)
    await until(() => bytesOf(chardev).length >= sent.length, 'all of it')
    expect(bytesOf(chardev).equals(sent)).toBe(true)
  })

  it.each([undefined, 'keep'] as const)('what was written for a host that left, on-close=%s', async (onClose) => {
    const { chardev, port } = await rig.host({ onClose })
    const end = await rig.guest()
    chardev.room = 10
    const { chardev: own, port: mine } = await program(end, port.id)
    own.send(new Uint8Array(100_000))
    await until(() => own.waiting === 0 && chardev.room === 0, 'it is on its way')
    chardev.setConnected(false)
    await until(() => !mine.hostOpen, 'host closed')
    chardev.setConnected(true)
    chardev.setRoom(Infinity)
    await until(() => mine.hostOpen, 'host open')
    own.send('next')
    await until(() => chardev.text.endsWith('next'), 'the next')
    const expected = onClose === 'keep' ? 100_004 : 14
    expect(chardev.text.length).toBe(expected)
    expect(port.counters.guestToHostBytes).toBe(expected)
    if (onClose === undefined) expect(port.counters.guestToHostDropped).toBeGreaterThan(0)
  })

  it('loses nothing to programs that open and close all the time', async () => {
    const { chardev } = await rig.host({}, false)
    const end = await rig.guest()
    const { chardev: own } = await program(end, 1, false)
    const random = new Random(1)
    const nap = async (): Promise<void> => {
      for (let turns = random.below(4); turns > 0; turns--)
        await new Promise((resolve) => (random.below(2) ? setImmediate(resolve) : setTimeout(resolve, random.below(3))))
    }
    for (let round = 1; round <= 200; round++) {
      for (const open of [chardev, ...Array<typeof own>(1 + random.below(3)).fill(own)]) {
        open.setConnected(true)
        await nap()
        if (open === own) own.setConnected(false)
        await nap()
      }
      own.setConnected(true)
      await nap()
      chardev.send('abc')
      await until(() => own.text.length === 3 * round, `round ${round}`)
      chardev.setConnected(false)
      await nap()
      own.setConnected(false)
      await nap()
    }
  })

  it('a drop policy never makes the guest wait', async () => {
    const { chardev, port } = await rig.host({ policy: 'drop-oldest', buffer: 1024 }, false)
    const end = await rig.guest()
    const { chardev: own } = await program(end, 1)
    own.send(Buffer.from(new Pattern().take(2 * MIB)))
    await until(() => own.waiting === 0 && port.counters.guestToHostDropped >= 2 * MIB - 1024, 'dropped')
    chardev.setConnected(true)
    await until(() => bytesOf(chardev).length === 1024, 'the last bytes')
    expect(bytesOf(chardev).equals(Buffer.from(new Pattern().take(2 * MIB)).subarray(-1024))).toBe(true)
  })

  it('the size of a console goes along', async () => {
    const { port } = await rig.host({ console: true, policy: 'drop-oldest' })
    const end = await rig.guest()
    await until(() => end.driver!.port(0) !== undefined, 'the port')
    rig.device.resizePort(port.id, 91, 31)
    await until(() => end.driver!.port(0)!.size?.cols === 91, 'the size')
    expect(end.driver!.port(0)!.size).toEqual({ cols: 91, rows: 31 })
  })

  it('a guest end that stops says goodbye: its ports are closed at the host', async () => {
    const { port } = await rig.host()
    const end = await rig.guest()
    await program(end, 1)
    await until(() => port.guestOpen, 'open')
    await end.stop()
    await until(() => !port.guestOpen, 'closed')
    expect(await end.ended).toBe('stopped')
  })

  it('is there when QEMU is: attach, detach', async () => {
    const socket = await rig.socket()
    await until(() => rig.server.attached, 'attached')
    socket.destroy()
    await until(() => rig.events.includes('detach'), 'detached')
    expect(rig.server.attached).toBe(false)
    // Somebody who only looks is no QEMU.
    const before = rig.events.length
    ;(await rig.socket()).destroy()
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(rig.events.length).toBe(before)
  })
})

describe('a guest that starts anew on the same stream', () => {
  /** As a reboot does it: QEMU says nothing, the next guest end writes behind what the last one left. */
  it.each([
    ['between frames', (): Buffer => Buffer.alloc(0)],
    ['within a header', (): Buffer => encodeFrame(FRAME.DATA, 1, Buffer.alloc(10, 1), 1).subarray(0, 3)],
    ['within data', (): Buffer => encodeFrame(FRAME.DATA, 1, Buffer.alloc(DATA_MAX, 1), 1).subarray(0, 1000)],
    [
      'before the last byte',
      (): Buffer => encodeFrame(FRAME.DATA, 1, Buffer.alloc(100, 1), 0x01020304).subarray(0, -1),
    ],
  ])('cut %s', async (_, left) => {
    const { chardev, port } = await rig.host()
    const socket = await rig.socket()
    const first = await talkTo(socket)
    socket.write(encodeFrame(FRAME.OPEN, 1, Uint8Array.of(1), first.tag))
    await until(() => port.guestOpen, 'open')
    socket.write(encodeFrame(FRAME.DATA, 1, Buffer.from('old'), first.tag))
    await until(() => chardev.text === 'old', 'old bytes')
    const part = left()
    socket.write(part)
    const second = await talkTo(socket)
    expect(second.tag).not.toBe(0)
    socket.write(encodeFrame(FRAME.OPEN, 1, Uint8Array.of(1), second.tag))
    socket.write(encodeFrame(FRAME.DATA, 1, Buffer.from('new'), second.tag))
    await until(() => chardev.text === 'oldnew', 'new bytes, and nothing of what was cut')
    expect(port.counters).toMatchObject({ guestOpens: 2 })
  })

  it('over and over', async () => {
    await rig.host()
    const socket = await rig.socket()
    for (let i = 0; i < 50; i++) await talkTo(socket)
    expect(rig.log.filter((line) => line.startsWith('error'))).toEqual([])
  })
})

/** A guest end by hand: says HELLO, gives the answer. */
async function talkTo(socket: Socket, hello: Partial<Hello> = {}): Promise<Welcome> {
  const nonce = randomBytes(16)
  let got: Welcome | undefined
  const reader = new FrameReader('guest', {
    greeted: (welcome) => {
      if (welcome.nonce.equals(nonce)) got = welcome as Welcome
    },
    frame: () => {},
    broken: () => {},
  })
  const take = (chunk: Buffer): void => void reader.push(chunk)
  socket.on('data', take)
  socket.write(Buffer.alloc(PAD_LEN))
  socket.write(encodeHello({ version: VERSION, window: WINDOW, nonce, ...hello }))
  await until(() => got !== undefined, 'WELCOME')
  socket.off('data', take)
  return got!
}

describe('a guest end that lies', () => {
  const frame = (type: number, channel: number, payload: Uint8Array) => (tag: number) =>
    encodeFrame(type, channel, payload, tag)
  it.each<[string, (tag: number) => Uint8Array, RegExp]>([
    ['a type that is none', frame(77, 1, Buffer.alloc(0)), /type 77/],
    ['a length without end', () => Buffer.from([8, 0, 1, 0, 255, 255, 255, 255]), /4294967295 bytes/],
    ['a wrong trailer', (tag) => encodeFrame(FRAME.PING, 0, Buffer.alloc(0), (tag ^ 1) >>> 0), /does not end/],
    ['a channel that is none', frame(FRAME.DATA, 9, Buffer.from('x')), /channel 9/],
    ['channel 0', frame(FRAME.OPEN, 0, Uint8Array.of(1)), /channel 0/],
    ['data without data', frame(FRAME.DATA, 1, Buffer.alloc(0)), /without data/],
    ['a port of its own', frame(FRAME.ADD, 2, Buffer.alloc(5)), /type 4/],
    ['an open of 2', frame(FRAME.OPEN, 1, Uint8Array.of(2)), /neither yes nor no/],
    ['half a credit', frame(FRAME.CREDIT, 1, Uint8Array.of(1, 2)), /credit frame of 2/],
    ['credit without end', frame(FRAME.CREDIT, 1, Uint8Array.of(255, 255, 255, 255)), /credit without end/],
    ['a greeting that is none', () => Buffer.alloc(64, 0xd6), /greeting that is none/],
  ])('%s', async (_, lie, reason) => {
    const { port } = await rig.host()
    const socket = await rig.socket()
    const { tag } = await talkTo(socket)
    socket.write(encodeFrame(FRAME.OPEN, 1, Uint8Array.of(1), tag))
    await until(() => port.guestOpen, 'open')
    socket.write(lie(tag))
    await until(() => !port.guestOpen, 'cut off')
    expect(rig.log.filter((line) => line.startsWith('error'))).toEqual([expect.stringMatching(reason)])
    // It is read on: a QEMU that cannot write stands still.
    await new Promise<void>((resolve) => socket.write(Buffer.alloc(4 * MIB, 8), () => resolve()))
    const { tag: next } = await talkTo(socket)
    socket.write(encodeFrame(FRAME.OPEN, 1, Uint8Array.of(1), next))
    await until(() => port.guestOpen, 'the next session')
  })

  it('more than its credit', async () => {
    const { chardev } = await rig.host()
    chardev.room = 0
    const socket = await rig.socket()
    const { tag } = await talkTo(socket)
    const data = encodeFrame(FRAME.DATA, 1, Buffer.alloc(DATA_MAX), tag)
    // Rings of our own take some, and give credit back for it.
    for (let i = 0; i < 200; i++) socket.write(data)
    await until(() => rig.log.some((line) => /more data than channel 1 has credit for/.test(line)), 'cut off')
  })

  it.each([
    ['version', { version: 9 }, /version 9, this is 1/],
    ['window', { window: 5 }, /window of 5/],
  ])('another %s', async (_, hello, reason) => {
    const socket = await rig.socket()
    if ('version' in hello) expect((await talkTo(socket, hello)).version).toBe(VERSION)
    else socket.write(encodeHello({ version: VERSION, nonce: randomBytes(16), ...hello }))
    await until(() => rig.log.some((line) => reason.test(line)), 'said')
  })

  it('fills no log', async () => {
    const socket = await rig.socket()
    for (let i = 0; i < 60; i++) {
      const { tag } = await talkTo(socket)
      socket.write(encodeFrame(99, 0, Buffer.alloc(0), tag))
    }
    expect(rig.log.filter((line) => line.startsWith('error')).length).toBeLessThanOrEqual(20)
  })

  it('noise, in any pieces', async () => {
    await rig.host()
    const socket = await rig.socket()
    for (let i = 0; i < 40; i++) {
      const { tag } = await talkTo(socket)
      const noise = randomBytes(5000)
      if (i % 2) encodeFrame(FRAME.DATA, 1, noise.subarray(0, 100), tag).copy(noise)
      socket.write(noise.subarray(0, 1 + ((i * 977) % 5000)))
    }
    const end = await rig.guest(socket)
    await until(() => end.driver!.ports.length === 1, 'a true guest end after all that')
  })
})

describe('a host end that lies', () => {
  /** The host end by hand: answers HELLO, then says what the test says. */
  async function against(lie: (tag: number) => Uint8Array, welcome: Partial<Welcome> = {}): Promise<string> {
    const { createServer } = await import('node:net')
    const tag = 0x01030507
    const server = createServer((socket) => {
      const reader = new FrameReader('host', {
        greeted: ({ nonce }) => {
          socket.write(encodeWelcome({ version: VERSION, maxPorts: 31, window: WINDOW, nonce, tag, ...welcome }))
          socket.write(lie(tag))
        },
        frame: () => {},
        broken: () => {},
      })
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => reader.push(chunk))
    })
    const path = `${rig.path}2`
    await new Promise<void>((resolve) => server.listen(path, resolve))
    try {
      const { connect } = await import('node:net')
      const end = await GuestEnd.start(connect(path), { log: rig.logger(), onPort: () => {} })
      return await end.ended
    } finally {
      server.close()
    }
  }
  const add =
    (channel: number, id: number, name = '', flags = 0) =>
    (tag: number) => {
      const payload = Buffer.concat([Buffer.from([id & 255, id >> 8, flags, 0]), Buffer.from(name)])
      return encodeFrame(FRAME.ADD, channel, payload, tag)
    }
  const both =
    (...all: ((tag: number) => Uint8Array)[]) =>
    (tag: number) =>
      Buffer.concat(all.map((one) => one(tag)))

  it.each<[string, (tag: number) => Uint8Array, RegExp]>([
    ['a port out of range', add(1, 500), /port 500/],
    ['a port twice', both(add(1, 3), add(2, 3)), /port 3 twice/],
    ['a channel twice', both(add(1, 3), add(1, 4)), /channel 1 for a second time/],
    ['a name without end', add(1, 3, 'x'.repeat(200)), /endless name/],
    ['port 0 that is no console', add(1, 0), /cannot be/],
    ['data for nobody', (tag) => encodeFrame(FRAME.DATA, 5, Buffer.from('x'), tag), /channel 5/],
    ['a size of no port', (tag) => encodeFrame(FRAME.SIZE, 5, Buffer.alloc(4), tag), /channel 5/],
    [
      'half a size',
      both(add(1, 0, '', ADD_CONSOLE), (tag) => encodeFrame(FRAME.SIZE, 1, Buffer.alloc(3), tag)),
      /type 6/,
    ],
    ['a goodbye', (tag) => encodeFrame(FRAME.BYE, 0, Buffer.alloc(0), tag), /channel 0/],
    ['a frame without end', () => Buffer.from([8, 0, 1, 0, 0, 0, 0, 1]), /16777216 bytes/],
  ])('%s', async (_, lie, reason) => {
    expect(await against(lie)).toMatch(reason)
  })

  it('a welcome that cannot be', async () => {
    const quiet = (): Uint8Array => Buffer.alloc(1)
    for (const wrong of [{ maxPorts: 0 }, { maxPorts: 600 }, { window: 1 }, { window: 2 ** 31 }])
      await expect(against(quiet, wrong)).rejects.toThrow(/welcome that cannot be/)
    await expect(against(quiet, { version: 2 })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CONTROL' })
  })
})
