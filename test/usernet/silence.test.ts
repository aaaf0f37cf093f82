/** What a link does about an other side from which nothing comes, and about a connection that takes nothing. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { Chardev, ChardevEnd } from '../../src/chardev/chardev.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import type { DriverPort } from '../../src/driver/port.ts'
import { Iovec } from '../../src/mem/iovec.ts'
import { WINDOW } from '../../src/usernet/channel.ts'
import { FRAME, FrameReader } from '../../src/usernet/frame.ts'
import { HostLink } from '../../src/usernet/host-link.ts'
import { PING_MS, SILENT_TICKS } from '../../src/usernet/link.ts'

const TAG = 0x01010101
const KINDS = Object.fromEntries(Object.entries(FRAME).map(([name, type]) => [type, name]))

beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }))
afterEach(() => void vi.useRealTimers())

/** A host's side with one port, and all that it says. */
function start(): {
  link: HostLink
  chardev: Chardev
  said: string[]
  heard: string[]
  stream: { held: number }
  port: DriverPort
} {
  const said: string[] = []
  const heard: string[] = []
  const reader = new FrameReader('guest', {
    greeted: () => {},
    frame: (type, channel, payload) => void said.push(`${KINDS[type]} ${channel} ${payload.length}`),
    broken: (reason) => expect.fail(reason),
  })
  reader.expect(TAG)
  const stream = { held: 0, send: (bytes: Uint8Array) => reader.push(Buffer.from(bytes)) }
  const link = new HostLink(stream, TAG, WINDOW, new ConsoleDevice())
  const end: ChardevEnd = {
    setConnected: (connected) => void heard.push(connected ? 'open' : 'closed'),
    readable: () => void heard.push('readable'),
    writable: () => void heard.push('writable'),
    resized: () => {},
    warn: () => {},
  }
  let chardev: Chardev | undefined
  const port = { id: 1, hostOpen: false, attach: (open: (one: ChardevEnd) => Chardev) => (chardev = open(end)) }
  link.handle({ event: 'added', port: port as unknown as DriverPort })
  return { link, chardev: chardev!, said, heard, stream, port: port as unknown as DriverPort }
}

it('asks, takes silence for absence, and takes it back', () => {
  const { link, chardev, said, heard } = start()
  expect(said).toEqual(['ADD 1 4'])
  link.receive(FRAME.OPEN, 1, Buffer.from([1]))
  expect(chardev.connected).toBe(true)
  // One tick for what has just come, one without a word.
  vi.advanceTimersByTime(2 * PING_MS)
  expect(said.filter((one) => one === 'PING 0 0')).toHaveLength(1)
  vi.advanceTimersByTime((SILENT_TICKS - 2) * PING_MS)
  expect(chardev.connected).toBe(true)
  vi.advanceTimersByTime(PING_MS)
  expect(chardev.connected).toBe(false)
  // A machine that was stopped goes on.
  link.receive(FRAME.PONG, 0, Buffer.alloc(0))
  expect(chardev.connected).toBe(true)
  expect(heard.filter((one) => one !== 'writable')).toEqual(['open', 'closed', 'open'])
  link.end()
  expect(vi.getTimerCount()).toBe(0)
})

it('a side that speaks is not asked', () => {
  const { link, said } = start()
  for (let i = 0; i < 100; i++) {
    vi.advanceTimersByTime(PING_MS / 4)
    link.receive(FRAME.PONG, 0, Buffer.alloc(0))
  }
  expect(said).not.toContain('PING 0 0')
  link.end()
})

it('says nothing while the connection takes nothing, and then what is true by then', () => {
  const { link, chardev, said, heard, stream, port } = start()
  said.length = 0
  stream.held = 1 << 20
  for (let i = 0; i < 1000; i++) {
    link.receive(FRAME.PING, 0, Buffer.alloc(0))
    link.handle({ event: i % 2 ? 'host-close' : 'host-open', port })
  }
  link.handle({ event: 'host-open', port })
  const list = new Iovec()
  list.push(new Uint8Array(100), 0, 100, 0)
  expect(chardev.writev(list)).toBe(0)
  expect(said).toEqual([])
  stream.held = 0
  heard.length = 0
  link.drained()
  expect(said).toEqual(['PONG 0 0', 'OPEN 1 1'])
  expect(heard).toEqual(['writable'])
  expect(chardev.writev(list)).toBe(100)
  link.end()
})

it('stops at the end of its credit, and goes on with more', () => {
  const { link, chardev, heard, said } = start()
  const list = new Iovec()
  list.push(new Uint8Array(WINDOW + 5), 0, WINDOW + 5, 0)
  expect(chardev.writev(list)).toBe(WINDOW)
  expect(chardev.writev(list)).toBe(0)
  expect(said.filter((one) => one.startsWith('DATA'))).toHaveLength(8)
  heard.length = 0
  link.receive(FRAME.CREDIT, 1, Buffer.from([3, 0, 0, 0]))
  expect(heard).toEqual(['writable'])
  expect(chardev.writev(list)).toBe(3)
  link.end()
})

it('takes what is on its way to a program that closes, before its own driver drops it', () => {
  const { link, heard } = start()
  link.receive(FRAME.OPEN, 1, Buffer.from([1]))
  link.receive(FRAME.OPEN, 1, Buffer.from([0]))
  expect(heard).toEqual(['open', 'writable', 'closed'])
  link.end()
})
