import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { isAttach, type AttachChardev } from '../../src/chardev/attach.ts'
import { openChardev } from '../../src/chardev/registry.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { listenUnix, type UnixListener } from '../../src/ffi/unix-listen.ts'
import { FakePort, openFds, sleep, until } from './tools.ts'

let dir: string
let listener: UnixListener
beforeEach(() => {
  dir = mkdtempSync('/tmp/attach-')
  listener = listenUnix(join(dir, 's'))
})
afterEach(() => {
  listener.close()
  rmSync(dir, { recursive: true })
})

async function pair(): Promise<{ socket: Socket; fd: number }> {
  const socket = connect(join(dir, 's'))
  await once(socket, 'connect')
  return { socket, fd: listener.accept()! }
}

async function open(): Promise<{ port: FakePort; chardev: AttachChardev }> {
  const port = new FakePort()
  const chardev = await openChardev({ kind: 'attach' }, port)
  if (!isAttach(chardev)) throw new Error('not an attach chardev')
  port.open(chardev)
  return { port, chardev }
}

test('a connection handed over is the peer; a second is not taken while it is there', async () => {
  const { port, chardev } = await open()
  expect(chardev.connected).toBe(false)
  const a = await pair()
  const b = await pair()
  expect(chardev.attach(a.fd)).toBe(true)
  expect(chardev.attach(b.fd)).toBe(false)
  port.read(true)
  a.socket.write('hello')
  await until(() => port.received === 'hello', 'hello')
  port.write('world')
  const [data] = (await once(a.socket, 'data')) as [Buffer]
  expect(data.toString()).toBe('world')
  a.socket.destroy()
  await until(() => port.events.at(-1) === 'gone', 'gone')
  expect(chardev.attach(b.fd)).toBe(true)
  b.socket.write(' again')
  await until(() => port.received === 'hello again', 'again')
  b.socket.destroy()
  chardev.close()
  expect(chardev.attach(0)).toBe(false)
})

test('who has ended his side and then left makes room at once, for nobody has to wait for a tick', async () => {
  const { port, chardev } = await open()
  port.read(true)
  const a = await pair()
  const b = await pair()
  chardev.attach(a.fd)
  a.socket.end('hello')
  await until(() => port.received === 'hello', 'hello')
  expect(chardev.vacate()).toBe(false) // it may still read
  a.socket.destroy()
  await once(a.socket, 'close')
  expect(chardev.vacate()).toBe(true)
  expect(chardev.attach(b.fd)).toBe(true)
  await until(() => port.events.at(-1) === 'connected', 'the port hears of both')
  expect(port.events.slice(-2)).toEqual(['gone', 'connected'])
  // What waits to be read keeps the place.
  port.read(false)
  b.socket.end('waits')
  await once(b.socket, 'finish')
  b.socket.destroy()
  await once(b.socket, 'close')
  expect(chardev.vacate()).toBe(false)
  port.read(true)
  await until(() => port.received === 'hellowaits', 'what waited')
  expect(chardev.vacate()).toBe(true)
  chardev.close()
})

test('the fd of a refused connection stays the caller’s; those taken are closed', async () => {
  const { chardev } = await open()
  const before = openFds().length
  const a = await pair()
  const b = await pair()
  chardev.attach(a.fd)
  expect(chardev.attach(b.fd)).toBe(false)
  closeFd(b.fd)
  chardev.disconnect()
  await Promise.all([once(a.socket, 'close'), once(b.socket, 'close')])
  chardev.close()
  await sleep(20)
  expect(openFds().length).toBe(before)
})

test('what a peer that has left sent waits for the port, and no longer where somebody wants the place', async () => {
  const { port, chardev } = await open()
  const a = await pair()
  chardev.attach(a.fd)
  a.socket.write('unread')
  await once(a.socket.end(), 'finish')
  expect(chardev.want()).toBe(false)
  a.socket.destroy()
  await until(() => chardev.want(), 'it has left')
  expect(chardev.connected).toBe(true)
  await until(() => !chardev.connected, 'dropped', 20_000)
  expect(port.warnings.join()).toMatch(/6 bytes from a peer that has left/)
  const b = await pair()
  expect(chardev.attach(b.fd)).toBe(true)
  b.socket.destroy()
  chardev.close()
})

test('other kinds are not for attaching', async () => {
  const { port } = await open()
  expect(isAttach(await openChardev({ kind: 'null' }, port))).toBe(false)
  expect(isAttach(undefined)).toBe(false)
})

test('a peer may be a server’s connection too: bytes of a real net.Server', async () => {
  const server = createServer((socket) => socket.pipe(socket)).listen(join(dir, 'echo'))
  await once(server, 'listening')
  const port = new FakePort()
  port.open(await openChardev({ kind: 'unix', path: join(dir, 'echo'), server: false }, port))
  port.read(true)
  port.write('e'.repeat(1 << 20))
  await until(() => port.inputLen === 1 << 20, 'echo')
  port.chardev!.close()
  server.close()
})
