import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { openChardev } from '../../src/chardev/registry.ts'
import type { TcpSpec } from '../../src/chardev/spec.ts'
import { VmchannelError } from '../../src/errors.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { boundPort, listenTcp } from '../../src/ffi/socket.ts'
import { cpuDuring, FakePort, openFds, sleep, until } from './tools.ts'

const cleanup: (() => void)[] = []
afterEach(() => {
  for (const fn of cleanup.splice(0).toReversed()) fn()
})

async function open(options: Partial<TcpSpec> = {}, signal?: AbortSignal): Promise<FakePort> {
  const port = new FakePort()
  port.open(await openChardev({ kind: 'tcp', port: 0, ...options }, port, signal))
  cleanup.push(() => port.chardev!.close())
  return port
}

const portOf = (port: FakePort): number => Number(/:(\d+)$/.exec(port.chardev!.place!)![1])

async function client(port: number, host = '127.0.0.1', allowHalfOpen = false): Promise<Socket> {
  const socket = connect({ port, host, allowHalfOpen })
  cleanup.push(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

async function failure(promise: Promise<unknown>): Promise<VmchannelError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  )
  expect(error).toBeInstanceOf(VmchannelError)
  return error as VmchannelError
}

test('listens on loopback only unless told otherwise', async () => {
  const port = await open()
  expect(port.chardev!.place).toMatch(/^127\.0\.0\.1:\d+$/)
  // 127.0.0.2 is this machine too, and reached by a socket bound to all addresses.
  const other = connect(portOf(port), '127.0.0.2')
  const [error] = (await once(other, 'error')) as [NodeJS.ErrnoException]
  expect(error.code).toBe('ECONNREFUSED')
  const wide = await open({ host: '0.0.0.0' })
  await client(portOf(wide), '127.0.0.2')
})

test('bytes both ways, and what one peer writes in small pieces comes at once', async () => {
  const port = await open()
  port.read(true)
  const socket = await client(portOf(port))
  socket.setNoDelay(true)
  socket.write('ping')
  await until(() => port.received === 'ping', 'ping')
  const start = performance.now()
  for (let i = 0; i < 20; i++) {
    port.write('x')
    await once(socket, 'data')
  }
  expect(performance.now() - start).toBeLessThan(400) // Nagle and delayed ACK would take 20 x 40 ms
  socket.destroy()
  await until(() => port.events.at(-1) === 'gone', 'gone')
})

test.each([
  ['::1', 6],
  ['0:0:0:0:0:0:0:1', 6],
  ['::ffff:127.0.0.1', 4],
])('IPv6: %s', async (host, family) => {
  const port = await open({ host, ...(family === 6 ? { ipv6: true } : {}) }).catch((error: unknown) => error as Error)
  if (port instanceof Error) {
    // A v4-mapped address cannot be bound on a socket that is IPv6 only.
    expect(host).toContain('ffff')
    return
  }
  expect(port.chardev!.place).toMatch(/^\[::1\]|^\[0:0/)
  const socket = await client(portOf(port), '::1')
  port.read(true)
  socket.write('six')
  await until(() => port.received === 'six', 'six')
})

test('a peer that has said FIN gives way to the next at once', async () => {
  const port = await open({ halfCloseMs: 60_000 })
  port.read(true)
  const first = await client(portOf(port), '127.0.0.1', true)
  first.end('question')
  await until(() => port.received === 'question', 'question')
  await sleep(300)
  port.write('answer')
  const [data] = (await once(first, 'data')) as [Buffer]
  expect(data.toString()).toBe('answer')
  expect(port.events).toEqual(['connected'])
  const second = await client(portOf(port))
  second.write('next')
  await until(() => port.received === 'questionnext', 'next', 1000)
  expect(port.events).toEqual(['connected', 'gone', 'connected'])
})

test('a reset with unread bytes does not spin, nor hold the place', async () => {
  const port = await open()
  const socket = await client(portOf(port))
  await until(() => port.chardev!.connected, 'connected')
  socket.write('abc')
  await sleep(30)
  socket.resetAndDestroy()
  expect(await cpuDuring(300)).toBeLessThan(100)
  port.read(true)
  await until(() => port.events.includes('gone'), 'gone')
})

test('a port that is taken, an address that is not ours, a name that is none', async () => {
  const port = await open()
  const taken = await failure(open({ port: portOf(port) }))
  expect(taken.code).toBe('ERR_VMCHANNEL_IN_USE')
  expect(taken.message).toContain(`127.0.0.1:${portOf(port)}`)
  expect((await failure(open({ host: '192.0.2.1' }))).hint).toContain('127.0.0.1')
  expect((await failure(open({ host: 'no-such-host.invalid' }))).message).toContain('no-such-host.invalid')
})

test('connecting: refused, then with reconnecting', async () => {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port: number } = listener.address() as { port: number }
  listener.close()
  await once(listener, 'close')
  const before = openFds().length
  const error = await failure(open({ port: number, server: false }))
  expect(error.code).toBe('ERR_VMCHANNEL_CHARDEV')
  expect(error.message).toMatch(/127\.0\.0\.1:\d+: ECONNREFUSED/)
  expect(error.hint).toContain('reconnect')
  expect(openFds().length).toBe(before)

  const port = await open({ port: number, server: false, reconnectMs: 200 })
  expect(port.chardev!.connected).toBe(false)
  await sleep(250)
  expect(port.warnings).toHaveLength(1)
  const server = createServer((socket) => socket.end('late')).listen(number, '127.0.0.1')
  cleanup.push(() => server.close())
  port.read(true)
  await until(() => port.received.includes('late'), 'late')
})

test('localhost is tried in all its addresses', async () => {
  const server = createServer((socket) => socket.write('hi')).listen(0, '127.0.0.1')
  cleanup.push(() => server.close())
  await once(server, 'listening')
  const port = await open({ host: 'localhost', port: (server.address() as { port: number }).port, server: false })
  expect(port.chardev!.connected).toBe(true)
  port.read(true)
  await until(() => port.received === 'hi', 'hi')
})

test('giving up while a connection is being tried leaves nothing', async () => {
  // A listener whose backlog is full: the kernel does not answer further attempts.
  const listener = listenTcp({ ip: '127.0.0.1', family: 4, port: 0 }, 0)
  cleanup.push(() => closeFd(listener))
  const number = boundPort(listener)
  for (let i = 0; i < 4; i++) {
    const filler = connect(number, '127.0.0.1')
    filler.on('error', () => {})
    cleanup.push(() => filler.destroy())
  }
  await sleep(100)
  const before = openFds().length
  const abort = new AbortController()
  const opening = failure(open({ port: number, server: false }, abort.signal))
  let settled = false
  void opening.then(() => (settled = true))
  await sleep(100)
  expect(settled).toBe(false)
  expect(openFds().length).toBe(before + 1)
  abort.abort()
  expect((await opening).code).toBe('ERR_VMCHANNEL_ABORTED')
  expect(openFds().length).toBe(before)
})
