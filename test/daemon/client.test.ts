/** The client against servers that misbehave, and the state directory. No device process here. */
import { once } from 'node:events'
import { chmodSync, chownSync, mkdirSync, symlinkSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { attachPort } from '../../src/client/attach.ts'
import { ControlClient } from '../../src/client/control-client.ts'
import { EventQueue } from '../../src/client/event-queue.ts'
import { REPLY_MAX, type ControlEvent } from '../../src/daemon/protocol.ts'
import { checkPrivateDir, listDirs, makePrivateDir, stateRoot } from '../../src/daemon/state-dir.ts'
import { TempDir } from './temp-dir.ts'

const temp = new TempDir()
const servers: Server[] = []
const sockets: Socket[] = []
let next = 0
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const server of servers.splice(0)) server.close()
})
afterAll(() => temp.remove())

/** A server that does `serve` with each line. */
async function fake(serve: (socket: Socket, request: { id: number; method: string }) => void): Promise<string> {
  const path = join(temp.path, `fake-${next++}.sock`)
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      for (const line of String(chunk).trim().split('\n'))
        serve(socket, JSON.parse(line) as { id: number; method: string })
    })
  })
  servers.push(server)
  server.listen(path)
  await once(server, 'listening')
  return path
}

const hello = { version: '0.1.0', protocol: 1, pid: 1, stateDir: '/' }
const answer = (socket: Socket, id: number, result: unknown): void =>
  void socket.write(`${JSON.stringify({ id, result })}\n`)

describe('requests', () => {
  it.each([
    ['says nothing', () => {}, 'ERR_VMCHANNEL_TIMEOUT'],
    ['hangs up', (socket: Socket) => socket.destroy(), 'ERR_VMCHANNEL_CLOSED'],
    [
      'speaks something else',
      (socket: Socket) => socket.write('HTTP/1.1 400 Bad Request\r\n'),
      'ERR_VMCHANNEL_CONTROL',
    ],
    [
      'speaks another protocol',
      (socket: Socket) => answer(socket, 1, { ...hello, protocol: 2 }),
      'ERR_VMCHANNEL_CONTROL',
    ],
    [
      'never ends its line',
      (socket: Socket) => socket.write(Buffer.alloc(REPLY_MAX + 1, 0x20)),
      'ERR_VMCHANNEL_CONTROL',
    ],
    ['refuses without a reason', (socket: Socket) => socket.write('{"id":1,"error":7}\n'), 'ERR_VMCHANNEL_CONTROL'],
  ])('a server that %s', async (_, serve, code) => {
    const path = await fake(serve)
    await expect(ControlClient.connect(path, { timeout: 500 })).rejects.toMatchObject({ code })
  })

  it('answers in any order, unknown answers, an abort in between', async () => {
    const held: (() => void)[] = []
    const path = await fake((socket, { id, method }) => {
      if (method === 'hello') return answer(socket, id, hello)
      held.push(() => answer(socket, id, [method, id]))
    })
    const client = await ControlClient.connect(path)
    const stop = new AbortController()
    const first = client.request('vm.list', {})
    const given = client.request('port.list', {}, { signal: stop.signal })
    const last = client.request('port.stats', {})
    stop.abort(new Error('enough'))
    await expect(given).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_ABORTED', cause: { message: 'enough' } })
    while (held.length < 3) await new Promise((resolve) => setImmediate(resolve))
    for (const reply of held.toReversed()) reply()
    expect(await last).toEqual(['port.stats', 4])
    expect(await first).toEqual(['vm.list', 2])
    const pending = client.request('vm.list', {})
    client.close()
    await expect(pending).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    await expect(client.request('vm.list', {})).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
  })

  it.each([
    [join(temp.path, 'nothing.sock'), /no such socket/],
    [import.meta.filename, /gone|not a socket/],
  ])('%s is no control socket', async (path, text) => {
    await expect(ControlClient.connect(path)).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_NOT_FOUND',
      message: expect.stringMatching(text) as string,
    })
  })
})

describe('attach', () => {
  it('the first bytes of the port are not lost, wherever the reply is cut', async () => {
    const reply = `${JSON.stringify({ id: 1, result: { port: 5 } })}\nfirst bytes`
    for (const cut of [0, 10, reply.indexOf('\n'), reply.indexOf('\n') + 1, reply.indexOf('\n') + 4, reply.length]) {
      const path = await fake((socket) => {
        socket.write(reply.slice(0, cut))
        setTimeout(() => socket.end(`${reply.slice(cut)} and more`), 5)
      })
      const { socket, info } = await attachPort(path, { port: 5 })
      expect(info.port).toBe(5)
      await new Promise((resolve) => setTimeout(resolve, 10))
      let text = ''
      for await (const chunk of socket) text += String(chunk)
      expect(text).toBe('first bytes and more')
    }
  })

  it('gives up by signal, and lets go of the connection', async () => {
    const path = await fake(() => {})
    await expect(attachPort(path, { port: 5 }, { timeout: 50 })).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_TIMEOUT',
    })
    await once(sockets[0]!, 'close')
  })
})

describe('events', () => {
  it('for a loop that is slow: so many, then a count', () => {
    const queue = new EventQueue()
    const event: ControlEvent = { event: 'guest-open', vm: 'a', port: 1, time: 0 }
    for (let i = 0; i < 2000; i++) queue.push(event)
    queue.push({ event: 'lost', count: 100, time: 0 })
    const seen: ControlEvent[] = []
    for (let done = false; !done;) {
      done = true
      const stop = queue.next((found) => {
        if (found) seen.push(found)
        done = found === undefined
      })
      stop()
    }
    expect(seen).toHaveLength(1025)
    expect(seen.at(-1)).toMatchObject({ event: 'lost', count: 2000 - 1024 + 100 })
  })
})

describe('state directory', () => {
  it('is looked for where it belongs', () => {
    const uid = process.getuid!()
    const fallback = uid === 0 ? '/run/vmchannel' : join(tmpdir(), `vmchannel-${uid}`)
    expect(stateRoot({ XDG_RUNTIME_DIR: temp.path })).toBe(join(temp.path, 'vmchannel'))
    expect(stateRoot({})).toBe(fallback)
    expect(stateRoot({ XDG_RUNTIME_DIR: 'relative' })).toBe(fallback)
    expect(stateRoot({ XDG_RUNTIME_DIR: join(temp.path, 'missing') })).toBe(fallback)
  })

  it('of another user is not taken', ({ skip }) => {
    if (process.getuid!() !== 0) return skip('only root can make the directory of another user')
    const other = join(temp.path, 'other')
    mkdirSync(other)
    chownSync(other, 1, 1)
    expect(stateRoot({ XDG_RUNTIME_DIR: other })).toBe('/run/vmchannel')
    expect(() => checkPrivateDir(other)).toThrow(/belongs to user 1/)
  })

  it('is made for one user, and believed only then', () => {
    const path = join(temp.path, 'private')
    expect(makePrivateDir(path)).toBe(true)
    expect(makePrivateDir(path)).toBe(false)
    chmodSync(path, 0o720)
    expect(() => makePrivateDir(path)).toThrow(/0720/)
    expect(() => listDirs(path)).toThrow(/others may write/)
    symlinkSync(temp.path, join(temp.path, 'link'))
    expect(() => makePrivateDir(join(temp.path, 'link'))).toThrow(/not a directory/)
    expect(listDirs(join(temp.path, 'missing'))).toEqual([])
  })
})
