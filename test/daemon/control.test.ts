/** The control socket: what it answers, and what clients that misbehave cannot do to it. Needs the build. */
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { attachPort } from '../../src/client/attach.ts'
import type { ControlClient } from '../../src/client/control-client.ts'
import { LINE_MAX, type ControlEvent } from '../../src/daemon/protocol.ts'
import { TestDevice, until } from './device.ts'

describe('control socket', () => {
  let device: TestDevice
  let client: ControlClient
  beforeAll(async () => {
    device = await TestDevice.start({ vms: [{ name: 'alpha', ports: ['null,name=first', 'attach,name=second'] }] })
    client = await device.client()
  })
  afterAll(() => device?.close())

  it('is for its owner only', () => {
    expect(statSync(device.control).mode & 0o777).toBe(0o600)
    expect(statSync(device.stateDir).mode & 0o777).toBe(0o700)
  })

  it('says who it is', () => {
    expect(client.hello).toMatchObject({ protocol: 1, pid: device.pid, stateDir: device.stateDir })
  })

  it('lists VMs and ports', async () => {
    const [vm] = await client.request('vm.list', {})
    expect(vm).toMatchObject({ vm: 'alpha', attached: false, started: false, maxPorts: 31, ports: 2, problem: null })
    expect(JSON.parse(vm!.qemuArgs[1]!)).toEqual({
      driver: 'vfio-user-pci',
      socket: { type: 'unix', path: vm!.socket },
    })
    const ports = await client.request('port.list', {})
    expect(ports.map(({ port, name, chardev }) => [port, name, chardev])).toEqual([
      [1, 'first', 'null'],
      [2, 'second', 'attach'],
    ])
  })

  it('adds, counts and removes a port', async () => {
    const added = await client.request('port.add', { spec: 'null,name=third' })
    expect(added).toMatchObject({ vm: 'alpha', port: 3, name: 'third', hostConnected: true, guestOpen: false })
    const [stats] = await client.request('port.stats', { port: 'third' })
    expect(stats!.counters).toMatchObject({ guestToHostBytes: 0, hostConnects: 1 })
    await client.request('port.remove', { port: 'third' })
    await expect(client.request('port.remove', { port: 'third' })).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_NOT_FOUND',
      hint: 'it has: 1 (first), 2 (second)',
    })
  })

  it.each([
    ['port.add', { spec: 'nul,name=x' }, 'ERR_VMCHANNEL_USAGE', /did you mean "null"/],
    ['port.add', { spec: 'null,name=first' }, 'ERR_VMCHANNEL_IN_USE', /name/],
    ['port.add', { spec: 'null,nr=31' }, 'ERR_VMCHANNEL_PORT', /0 to 30/],
    ['port.add', { spec: 'unix:/no/such/dir/a.sock' }, 'ERR_VMCHANNEL_CHARDEV', /create the directory/],
    ['port.add', { vm: 'beta', spec: 'null' }, 'ERR_VMCHANNEL_NOT_FOUND', /it has: alpha/],
    ['port.add', { spec: 7 }, 'ERR_VMCHANNEL_USAGE', /spec/],
    ['port.add', { spec: 'null', more: 1 }, 'ERR_VMCHANNEL_USAGE', /more/],
    ['port.resize', { port: 'first', cols: 80, rows: 24 }, 'ERR_VMCHANNEL_PORT', /not a console/],
    ['vm.add', { name: '../x' }, 'ERR_VMCHANNEL_USAGE', /name/],
    ['vm.add', { name: 'alpha' }, 'ERR_VMCHANNEL_IN_USE', /alpha/],
    ['vm.add', { maxPorts: 512 }, 'ERR_VMCHANNEL_USAGE', /max-ports/],
    ['port.nothing', {}, 'ERR_VMCHANNEL_CONTROL', /there are: hello/],
    ['toString', {}, 'ERR_VMCHANNEL_CONTROL', /there are: hello/],
  ])('refuses %s %j', async (method, params, code, text) => {
    const error = await client.request(method as 'port.add', params as never).then(
      () => undefined,
      (reason: unknown) => reason as { code: string; message: string; hint?: string },
    )
    expect(error?.code).toBe(code)
    expect(`${error?.message} ${error?.hint}`).toMatch(text)
  })

  it('adds and removes a VM, and a VM that fails leaves nothing', async () => {
    const vm = await client.request('vm.add', { ports: ['null,name=a'] })
    expect(vm).toMatchObject({ vm: 'vm0', ports: 1 })
    await expect(client.request('port.list', {})).resolves.toHaveLength(3)
    await expect(client.request('port.add', { spec: 'null' })).rejects.toMatchObject({
      hint: 'name one of: alpha, vm0',
    })
    await client.request('vm.remove', { vm: 'vm0' })
    const before = device.fds
    const bad = { ports: [`unix:${device.temp.path}/ok.sock`, 'unix:/no/such/dir/a.sock'] }
    await expect(client.request('vm.add', bad)).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CHARDEV' })
    expect(device.fds).toBe(before)
    expect(() => statSync(`${device.temp.path}/ok.sock`)).toThrow('ENOENT')
  })

  it('tells events', async () => {
    const other = await device.client()
    const seen: ControlEvent[] = []
    await other.subscribe((event) => seen.push(event))
    const { port } = await client.request('port.add', { spec: 'null,name=told' })
    await client.request('port.remove', { port })
    await until(() => seen.length >= 2)
    expect(seen).toMatchObject([
      { event: 'port-added', vm: 'alpha', port, name: 'told' },
      { event: 'port-removed', vm: 'alpha', port, name: 'told' },
    ])
    const loop = (async () => {
      for await (const event of other.events()) return event
    })()
    await client.request('vm.list', {})
    // The loop subscribes in its first turn.
    await other.request('hello', {})
    await client.request('port.add', { spec: 'null,name=loop' })
    expect(await loop).toMatchObject({ event: 'port-added', name: 'loop' })
    await client.request('port.remove', { port: 'loop' })
    other.close()
  })

  it('a wait for a peer ends with the connection that asked for it', async () => {
    const other = await device.client()
    const spec = `unix:${device.temp.path}/wait.sock,wait=on,name=waiting`
    const waiting = other.request('port.add', { spec })
    waiting.catch(() => {})
    await until(() => statSync(`${device.temp.path}/wait.sock`, { throwIfNoEntry: false }) !== undefined)
    other.close()
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    await until(() => statSync(`${device.temp.path}/wait.sock`, { throwIfNoEntry: false }) === undefined)
    await expect(client.request('port.list', {})).resolves.toHaveLength(2)
  })

  describe('attach', () => {
    it('makes the connection the far end of the port, one at a time', async () => {
      const { socket, info } = await attachPort(device.control, { port: 'second' })
      expect(info).toMatchObject({ port: 2, name: 'second' })
      await expect(attachPort(device.control, { port: 2 })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_IN_USE' })
      const connected = async (): Promise<boolean> => (await client.request('port.list', {}))[1]!.hostConnected
      expect(await connected()).toBe(true)
      socket.destroy()
      await once(socket, 'close')
      for (let i = 0; i < 100 && (await connected()); i++) await new Promise((resolve) => setTimeout(resolve, 10))
      expect(await connected()).toBe(false)
    })

    it('only where the port is for that', async () => {
      await expect(attachPort(device.control, { port: 'first' })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_PORT' })
      await expect(attachPort(device.control, { port: 9 })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_NOT_FOUND' })
    })

    it('is alone on its connection', async () => {
      const raw = await device.raw()
      raw.socket.write('{"id":1,"method":"port.attach","params":{"port":2}}\nearly bytes')
      expect(await raw.replies(1)).toMatchObject([{ id: 1, error: { code: 'ERR_VMCHANNEL_CONTROL' } }])
      await raw.end()
      const subscriber = await device.raw()
      subscriber.socket.write('{"id":1,"method":"subscribe"}\n{"id":2,"method":"port.attach","params":{"port":2}}\n')
      expect((await subscriber.replies(2))[1]).toMatchObject({ id: 2, error: { code: 'ERR_VMCHANNEL_CONTROL' } })
      subscriber.socket.destroy()
    })
  })

  describe('clients that misbehave', () => {
    it.each([
      ['garbage', 'hello\n'],
      ['bytes that are no UTF-8', Buffer.from([0x22, 0xff, 0xfe, 0x22, 0x0a])],
      ['an array', '[]\n'],
      ['no id', '{"method":"hello"}\n'],
      ['an object as id', '{"id":{},"method":"hello"}\n'],
      ['no method', '{"id":1}\n'],
      ['brackets', `${'['.repeat(60_000)}\n`],
      ['a line without end', Buffer.alloc(LINE_MAX + 1, 0x20)],
      ['a line that is too long', `{"id":1,"method":"${'x'.repeat(LINE_MAX)}"}\n`],
    ])('%s: told so, and hung up on', async (_, bytes) => {
      const raw = await device.raw()
      raw.socket.write(bytes)
      expect(await raw.replies(1)).toMatchObject([{ id: null, error: { code: 'ERR_VMCHANNEL_CONTROL' } }])
      await raw.end()
    })

    it('the longest line is a line', async () => {
      const raw = await device.raw()
      const text = '{"id":1,"method":"hello"}'
      raw.socket.write(`${text.padEnd(LINE_MAX - 1)}\n`)
      expect(await raw.replies(1)).toMatchObject([{ id: 1, result: { protocol: 1 } }])
      raw.socket.destroy()
    })

    it('a request in pieces, and many in one', async () => {
      const raw = await device.raw()
      for (const byte of '{"id":"a","method":"hello"}\n') {
        raw.socket.write(byte)
        await new Promise((resolve) => setImmediate(resolve))
      }
      raw.socket.write(Array.from({ length: 500 }, (_, i) => `{"id":${i},"method":"vm.list","params":{}}\n`).join(''))
      const replies = await raw.replies(501)
      expect(replies.map(({ id }) => id)).toEqual(['a', ...Array.from({ length: 500 }, (_, i) => i)])
      raw.socket.destroy()
    })

    it('a half-closed client gets all its answers', async () => {
      const raw = await device.raw()
      raw.socket.end('{"id":1,"method":"hello"}\n{"id":2,"method":"port.list"}\n{"id":3,"met')
      expect((await raw.replies(2)).map(({ id }) => id)).toEqual([1, 2])
      await raw.end()
    })

    it('one that asks and never reads takes no memory', async () => {
      const before = device.memory('VmRSS')
      const raw = await device.raw()
      raw.socket.pause()
      const requests = '{"id":1,"method":"port.stats"}\n'.repeat(1000)
      let sent = 0
      for (let i = 0; i < 2000 && raw.socket.writableLength < 4 << 20; i++) {
        raw.socket.write(requests)
        sent += 1000
        await new Promise((resolve) => setImmediate(resolve))
      }
      expect(sent).toBeGreaterThan(20_000)
      await client.request('hello', {}, { timeout: 2000 })
      expect(device.memory('VmRSS') - before).toBeLessThan(10_000)
      raw.socket.destroy()
    })

    it('a subscriber that does not read misses events, is told how many, and holds up nobody', async () => {
      const raw = await device.raw()
      raw.socket.write('{"id":0,"method":"subscribe"}\n')
      await raw.replies(1)
      raw.socket.pause()
      const count = 6000
      for (let i = 0; i < count / 2; i += 10)
        await Promise.all(
          Array.from({ length: 10 }, async (_, k) => {
            const { port } = await client.request('port.add', { spec: `null,name=${'n'.repeat(100)}-${i + k}` })
            await client.request('port.remove', { port })
          }),
        )
      raw.socket.resume()
      let heard = 0
      await until(() => {
        heard = raw.lines.slice(1).reduce((sum, line) => {
          const { event, count: lost } = JSON.parse(line) as ControlEvent
          return sum + (event === 'lost' ? lost! : 1)
        }, 0)
        return heard >= count
      })
      expect(heard).toBe(count)
      const lost = raw.lines.filter((line) => line.includes('"lost"'))
      expect(lost.length).toBeGreaterThan(0)
      raw.socket.destroy()
    })

    it('hundreds of them at once, silent or gone, leave nothing behind', async () => {
      const before = device.fds
      const crowd = await Promise.all(Array.from({ length: 100 }, () => device.raw()))
      expect((await client.request('hello', {})).pid).toBe(device.pid)
      for (const [i, { socket }] of crowd.entries()) {
        if (i % 3 === 0) socket.write('{"id":1,"meth')
        if (i % 3 === 1) socket.write('{"id":1,"method":"subscribe"}\n')
        socket.destroy()
      }
      for (let i = 0; i < 300; i++) (await device.raw()).socket.destroy()
      await until(() => device.fds <= before) // fewer, where an earlier client had yet to be closed
      // More than may talk at once: the others wait in the backlog and get their turn.
      const many = await Promise.all(Array.from({ length: 150 }, () => device.raw()))
      for (const { socket } of many) socket.write('{"id":1,"method":"hello"}\n')
      await until(() => many.filter(({ lines }) => lines.length === 1).length >= 120)
      for (const { socket } of many.slice(0, 50)) socket.destroy()
      await until(() => many.slice(50).every(({ lines }) => lines.length === 1))
      for (const { socket } of many) socket.destroy()
      await until(() => device.fds <= before) // fewer, where an earlier client had yet to be closed
    })
  })

  it('after all that: no error in the log, no CPU while idle', async () => {
    const errors = device.log.split('\n').filter((line) => /error|bug/.test(line))
    expect(errors).toEqual([])
    const before = device.cpu
    await new Promise((resolve) => setTimeout(resolve, 1500))
    expect(device.cpu - before).toBeLessThanOrEqual(10)
  })

  it('stops when asked to', async () => {
    await client.request('stop', {})
    expect(await device.exit()).toBe(0)
    expect(statSync(device.stateDir, { throwIfNoEntry: false })).toBeUndefined()
    expect(client.closed || (await new Promise((resolve) => client.onClose(() => resolve(true))))).toBe(true)
  })
})
