import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { GONE } from '../../src/chardev/chardev.ts'
import { openChardev } from '../../src/chardev/registry.ts'
import type { UnixSpec } from '../../src/chardev/spec.ts'
import { cpuDuring, FakePort, openFds, sleep, textList, until } from './tools.ts'

let dir: string
let path: string
let cleanup: (() => void)[]
beforeEach(() => {
  dir = mkdtempSync('/tmp/chardev-')
  path = join(dir, 's')
  cleanup = []
})
afterEach(() => {
  for (const fn of cleanup.toReversed()) fn()
  rmSync(dir, { recursive: true, force: true })
})

async function open(options: Partial<UnixSpec> = {}, signal?: AbortSignal): Promise<FakePort> {
  const port = new FakePort()
  port.open(await openChardev({ kind: 'unix', path, ...options }, port, signal))
  cleanup.push(() => port.chardev!.close())
  return port
}

async function client(options: { allowHalfOpen?: boolean } = {}): Promise<Socket> {
  const socket = connect({ path, ...options })
  cleanup.push(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

describe('leaving', () => {
  test('a peer that vanishes in mid-write', async () => {
    const port = await open()
    const socket = await client()
    socket.pause()
    await until(() => port.chardev!.connected, 'connected')
    port.write('a'.repeat(4 << 20))
    expect(port.output.length).toBeGreaterThan(0)
    socket.destroy()
    await until(() => port.events.includes('gone'), 'gone')
    expect(port.chardev!.writev(textList('x'))).toBe(GONE)
    const again = await client()
    const [data] = (await once(again, 'data')) as [Buffer]
    expect(data.length).toBeGreaterThan(0)
  })

  test('hang-up with unread bytes while the port does not read: no spin, bytes stay, then gone', async () => {
    const port = await open()
    const socket = await client()
    await until(() => port.chardev!.connected, 'connected')
    socket.end('last words')
    await sleep(50)
    socket.destroy()
    expect(await cpuDuring(400)).toBeLessThan(100)
    expect(port.events).toEqual(['connected'])
    port.read(true)
    await until(() => port.events.includes('gone'), 'gone')
    expect(port.received).toBe('last words')
    expect(port.lastRead).toBe(GONE)
  })

  test('hang-up with nothing unread is seen although the port does not read', async () => {
    const port = await open()
    const socket = await client()
    await until(() => port.chardev!.connected, 'connected')
    socket.destroy()
    await until(() => port.events.includes('gone'), 'gone')
  })

  test('unread bytes of a peer that left hold up the next peer and held-up output 5 s at most', async () => {
    const port = await open()
    const first = await client()
    await until(() => port.chardev!.connected, 'connected')
    first.end('abc')
    await sleep(50)
    first.destroy()
    await sleep(50)
    expect(port.chardev!.writev(textList('x'))).toBe(0)
    const second = await client()
    second.write('second')
    await until(() => port.events.length === 3, 'change of peer', 8000)
    expect(port.events).toEqual(['connected', 'gone', 'connected'])
    expect(port.warnings.join()).toMatch(/3 bytes .* dropped/)
    port.read(true)
    await until(() => port.received === 'second', 'second')
  })

  test('a peer that ends its input still gets the answer, and leaves when it closes', async () => {
    const port = await open()
    port.read(true)
    const socket = await client({ allowHalfOpen: true })
    socket.end('question')
    await until(() => port.received === 'question', 'question')
    await sleep(300)
    expect(port.events).toEqual(['connected'])
    expect(await cpuDuring(300)).toBeLessThan(100)
    port.write('answer')
    const [data] = (await once(socket, 'data')) as [Buffer]
    expect(data.toString()).toBe('answer')
    socket.destroy()
    await until(() => port.events.includes('gone'), 'gone')
  })

  test('half-close-ms: an idle peer that ended its input is let go; 0 lets it go at once', async () => {
    const port = await open({ halfCloseMs: 600 })
    const socket = await client({ allowHalfOpen: true })
    port.read(true)
    socket.end('x')
    await sleep(300)
    expect(port.events).toEqual(['connected'])
    await until(() => port.events.includes('gone'), 'gone', 1500)
    port.chardev!.close()

    const strict = await open({ halfCloseMs: 0 })
    const other = await client({ allowHalfOpen: true })
    strict.read(true)
    other.end('x')
    await until(() => strict.events.includes('gone'), 'gone', 150)
  })

  test('discardInput throws away what was sent, also by visitors who have left', async () => {
    const port = await open()
    const first = await client()
    first.end('stale one')
    await sleep(30)
    first.destroy()
    const second = await client()
    second.end('stale two')
    await sleep(30)
    second.destroy()
    await sleep(30)
    const third = await client()
    expect(port.chardev!.discardInput()).toBe(18)
    third.write('fresh')
    port.read(true)
    await until(() => port.received === 'fresh', 'fresh')
  })

  test('disconnect ends this peer and takes the next', async () => {
    const port = await open()
    const first = await client()
    await until(() => port.chardev!.connected, 'connected')
    port.chardev!.disconnect()
    await once(first, 'close')
    await client()
    await until(() => port.events.length === 3, 'next')
  })

  test('no fd is leaked', async () => {
    const before = openFds()
    for (let i = 0; i < 20; i++) {
      const port = await open()
      const socket = await client()
      port.read(true)
      socket.write('x')
      await until(() => port.received === 'x', 'x')
      port.chardev!.close()
      socket.destroy()
    }
    await sleep(100)
    expect(openFds().length).toBeLessThanOrEqual(before.length)
  })
})
