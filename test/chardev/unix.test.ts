import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { GONE } from '../../src/chardev/chardev.ts'
import { openChardev } from '../../src/chardev/registry.ts'
import type { UnixSpec } from '../../src/chardev/spec.ts'
import { VmchannelError } from '../../src/errors.ts'
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

async function failure(promise: Promise<unknown>): Promise<VmchannelError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  )
  expect(error).toBeInstanceOf(VmchannelError)
  return error as VmchannelError
}

describe('listening', () => {
  test('bytes go both ways, and the port hears of coming and going', async () => {
    const port = await open()
    expect(port.chardev!.connected).toBe(false)
    expect(port.chardev!.writev(textList('x'))).toBe(GONE)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    const socket = await client()
    await until(() => port.events.includes('connected'), 'connected')
    port.read(true)
    socket.write('to guest')
    await until(() => port.received === 'to guest', 'input')
    port.write('to host')
    const [data] = (await once(socket, 'data')) as [Buffer]
    expect(data.toString()).toBe('to host')
    socket.destroy()
    await until(() => port.events.includes('gone'), 'gone')
    expect(port.events).toEqual(['connected', 'gone'])
    expect(port.chardev!.readv(textList('    '))).toBe(GONE)
  })

  test('mode= widens the socket, close removes it', async () => {
    const port = await open({ mode: 0o666 })
    expect(statSync(path).mode & 0o777).toBe(0o666)
    port.chardev!.close()
    expect(existsSync(path)).toBe(false)
  })

  test('wait=on opens with the first peer, who is not announced twice', async () => {
    const opening = open({ wait: true })
    let opened = false
    void opening.then(() => (opened = true))
    await sleep(50)
    expect(opened).toBe(false)
    await client()
    const port = await opening
    expect(port.chardev!.connected).toBe(true)
    await sleep(20)
    expect(port.events).toEqual([])
  })

  test('a wait can be given up, and leaves nothing behind', async () => {
    const before = openFds().length
    const abort = new AbortController()
    const opening = open({ wait: true }, abort.signal)
    await sleep(20)
    abort.abort()
    await expect(opening).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_ABORTED' })
    expect(existsSync(path)).toBe(false)
    await sleep(20)
    expect(openFds().length).toBe(before)
  })

  test('one peer at a time: the second waits, its bytes too', async () => {
    const port = await open()
    port.read(true)
    const first = await client()
    const second = await client()
    second.write('second')
    first.write('first')
    await until(() => port.received === 'first', 'first')
    await sleep(50)
    expect(port.received).toBe('first')
    first.destroy()
    await until(() => port.received === 'firstsecond', 'second')
    expect(port.events).toEqual(['connected', 'gone', 'connected'])
  })
})

describe('paths', () => {
  test('the socket of a dead process is taken over, a living one is not', async () => {
    const dead = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`,
    ])
    await once(dead.stdout, 'data')
    const live = await failure(open())
    expect(live.code).toBe('ERR_VMCHANNEL_IN_USE')
    expect(live.message).toContain(path)
    dead.kill('SIGKILL')
    await once(dead, 'exit')
    expect(existsSync(path)).toBe(true)
    const port = await open()
    await client()
    await until(() => port.chardev!.connected, 'connected')
  })

  test('a file in the way is not touched', async () => {
    writeFileSync(path, 'precious')
    expect((await failure(open())).message).toContain('not a socket')
    expect(statSync(path).size).toBe(8)
  })

  test('a missing directory, a long path', async () => {
    path = join(dir, 'no/such/s')
    expect((await failure(open())).message).toContain(join(dir, 'no/such'))
    path = join(dir, 'x'.repeat(100))
    expect((await failure(open())).message).toContain('107')
  })

  test('no permission (as an ordinary user)', async () => {
    if (process.getuid!() !== 0) return console.log('not root: the test that needs another user did not run')
    chmodSync(dir, 0o755)
    process.seteuid!(65534)
    try {
      expect((await failure(open())).message).toMatch(/permission/)
    } finally {
      process.seteuid!(0)
    }
  })
})

describe('back-pressure', () => {
  test('a peer that does not read: nothing is taken that does not fit, nothing is lost, nothing spins', async () => {
    const port = await open()
    const socket = await client()
    socket.pause()
    await until(() => port.chardev!.connected, 'connected')
    const data = randomBytes(8 << 20)
    port.write(data.toString('latin1'))
    const left = port.output.length
    expect(left).toBeGreaterThan(4 << 20)
    expect(port.chardev!.writev(textList('x'))).toBe(0)
    expect(await cpuDuring(300)).toBeLessThan(100)
    expect(port.output.length).toBeGreaterThan(left - (1 << 20))
    const chunks: Buffer[] = []
    let len = 0
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      len += chunk.length
    })
    socket.resume()
    await until(() => len === data.length, 'all data')
    expect(Buffer.concat(chunks).equals(data)).toBe(true)
  })

  test('a port that does not read holds up the sender, and memory stays flat', async () => {
    const port = await open()
    const socket = await client()
    let sent = 0
    const block = Buffer.alloc(65536, 'a')
    const before = process.memoryUsage().rss
    while (sent < 32 << 20 && socket.write(block)) sent += block.length
    await sleep(200)
    expect(sent).toBeLessThan(4 << 20)
    expect(port.readables).toBe(0)
    expect(process.memoryUsage().rss - before).toBeLessThan(32 << 20)
    port.read(true)
    await until(() => port.inputLen >= sent, 'input')
    expect(await cpuDuring(200)).toBeLessThan(60)
  })

  test('switching off reading inside readable stops it at once', async () => {
    const port = await open()
    const socket = await client()
    await until(() => port.chardev!.connected, 'connected')
    port.readable = () => {
      port.readables++
      port.read(false)
    }
    port.read(true)
    socket.write('x')
    await until(() => port.readables === 1, 'readable')
    expect(await cpuDuring(200)).toBeLessThan(60)
    expect(port.readables).toBe(1)
  })
})

describe('connecting', () => {
  test('without a server it fails with a next step', async () => {
    const error = await failure(open({ server: false }))
    expect(error.code).toBe('ERR_VMCHANNEL_CHARDEV')
    expect(error.message).toContain(path)
    expect(error.hint).toContain('reconnect')
  })

  test('a server that comes late, goes, and comes again', async () => {
    const port = await open({ server: false, reconnectMs: 200 })
    expect(port.warnings).toHaveLength(1)
    port.read(true)
    await sleep(300)
    expect(port.warnings).toHaveLength(1)
    for (let round = 1; round <= 2; round++) {
      const peers: Socket[] = []
      const server = createServer((socket) => {
        peers.push(socket)
        socket.write(`round ${round};`)
      }).listen(path)
      cleanup.push(() => server.close())
      await until(() => port.received.includes(`round ${round}`), 'connected')
      server.close()
      for (const peer of peers) peer.destroy()
      await until(() => port.events.at(-1) === 'gone', 'gone')
    }
    expect(port.events).toEqual(['connected', 'gone', 'connected', 'gone'])
  })

  test('a server that hangs up at once is not hammered', async () => {
    let connections = 0
    const server = createServer((socket) => {
      connections++
      socket.destroy()
    }).listen(path)
    cleanup.push(() => server.close())
    await once(server, 'listening')
    await open({ server: false, reconnectMs: 400 })
    await sleep(1500)
    expect(connections).toBeGreaterThan(3)
    expect(connections).toBeLessThan(9)
  })
})
