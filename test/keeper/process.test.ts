/** The keeper beside its device process: how they start, end, and die. Needs the build. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ControlClient } from '../../src/client/control-client.ts'
import { startDevice } from '../../src/client/start.ts'
import type { DaemonConfig, ProcessInfo } from '../../src/daemon/protocol.ts'
import { encodeHello, encodeWelcome, FRAME, FrameReader, NONCE_LEN, VERSION } from '../../src/usernet/frame.ts'
import { TestDevice, until } from '../daemon/device.ts'

const VMM = new URL('../daemon/vmm-program.mjs', import.meta.url).pathname
const open: TestDevice[] = []
afterEach(async () => {
  for (const device of open.splice(0)) await device.close()
})

async function start(config: Partial<DaemonConfig> = {}): Promise<TestDevice> {
  const device = await TestDevice.start(config, { keeper: true })
  open.push(device)
  return device
}

async function hello(device: TestDevice): Promise<ProcessInfo> {
  const client = await ControlClient.connect(device.control)
  client.close()
  return client.hello
}

async function kill(device: TestDevice): Promise<void> {
  const { devicePid, restarts } = await hello(device)
  process.kill(devicePid!, 'SIGKILL')
  await until(() =>
    hello(device).then(
      ({ restarts: now }) => now === restarts! + 1,
      () => false,
    ),
  )
}

/** The process that waits beside the device process, once it is there. */
async function spare(device: TestDevice): Promise<number> {
  const { devicePid } = await hello(device)
  let found: number | undefined
  await until(() => {
    const children = readFileSync(`/proc/${device.pid}/task/${device.pid}/children`, 'utf8').trim().split(' ')
    found = children.map(Number).find((pid) => pid !== devicePid)
    return found !== undefined
  })
  return found!
}

async function peer(path: string): Promise<Socket> {
  const socket = connect(path)
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

describe('a keeper', () => {
  it('is the process that is started, answered for, signalled and waited for', async () => {
    const device = await start()
    expect(device.pid).toBe(device.started.process.pid)
    const info = await hello(device)
    expect(info).toMatchObject({ pid: device.pid, restarts: 0 })
    expect(info.devicePid).not.toBe(device.pid)
    process.kill(device.pid, 'SIGTERM')
    expect(await device.exit()).toBe(0)
    expect(readdirSync(device.temp.path)).toEqual([])
  })

  it('ends with its parent, and with its VMM', async () => {
    const first = await start()
    await kill(first)
    first.started.stdin.end()
    expect(await first.exit()).toBe(0)
    const second = await start({ exitWith: 'vmm' })
    const vmm = spawn(process.execPath, [VMM, second.started.vms[0]!.socket], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(vmm.stdout, 'data')
    await kill(second)
    expect((await (await second.client()).request('vm.list', {}))[0]!.attached).toBe(true)
    vmm.kill('SIGKILL')
    expect(await second.exit()).toBe(0)
    expect(existsSync(second.stateDir)).toBe(false)
  })

  it('passes on why a device process does not start, and starts no other', async () => {
    const config: DaemonConfig = {
      vms: [{ ports: ['unix:/no/such/dir/a.sock'] }],
      exitWith: 'parent',
      logLevel: 'warn',
    }
    await expect(startDevice(config, { keeper: true })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CHARDEV' })
  })

  it('keeps every kind of peer, listener and runtime change', async () => {
    const device = await start({ vms: [{ name: 'a', ports: ['attach,name=stream'] }] })
    const { path } = device.temp
    const client = await device.client()
    const { place } = await client.request('port.add', { spec: 'tcp:127.0.0.1:0,name=tcp' })
    const pty = await client.request('port.add', { spec: `pty:${path}/tty,name=pty,console=on` })
    await client.request('port.add', { spec: `unix:${path}/unix.sock,name=unix` })
    await client.request('port.add', { spec: `file:${path}/log,name=file` })
    await client.request('vm.add', { name: 'b', ports: [] })
    const sockets = [await peer(`${path}/unix.sock`)]
    const tcp = connect(Number(place!.split(':')[1]), '127.0.0.1')
    await once(tcp, 'connect')
    const stream = await device.raw()
    stream.socket.write('{"id":1,"method":"port.attach","params":{"vm":"a","port":"stream"}}\n')
    await stream.replies(1)
    sockets.push(tcp, stream.socket)
    const list = async (): Promise<unknown> => (await device.client()).request('port.list', {})
    const connected = async (): Promise<boolean> =>
      (await (await device.client()).request('port.list', {})).filter((port) => port.hostConnected).length === 4
    await until(connected)
    const before = await list()
    await kill(device)
    expect(await list()).toEqual(before)
    expect(pty.place).toBe((before as { place: string }[])[0]!.place)
    const names = (await (await device.client()).request('vm.list', {})).map(({ vm }) => vm)
    expect(names).toEqual(['a', 'b'])
    // A peer that goes, or that the device hangs up on, is gone although the keeper had a copy.
    sockets[0]!.destroy()
    await (await device.client()).request('port.remove', { vm: 'a', port: 'tcp' })
    if (!tcp.destroyed) await once(tcp.resume(), 'close')
    await until(async () => {
      const ports = await (await device.client()).request('port.list', { vm: 'a' })
      return ports.every(({ name, hostConnected }) => name !== 'unix' || !hostConnected)
    })
    stream.socket.destroy()
  })

  it('has a loaded process at hand, which takes over; and does without where there is none', async () => {
    const device = await start()
    const first = await spare(device)
    await kill(device)
    expect((await hello(device)).devicePid).toBe(first)
    const second = await spare(device)
    process.kill(second, 'SIGKILL')
    await until(() => !existsSync(`/proc/${second}`))
    await kill(device)
    expect((await hello(device)).devicePid).not.toBe(second)
    const third = await spare(device)
    process.kill(device.pid, 'SIGTERM')
    await device.exit()
    await until(() => !existsSync(`/proc/${third}`))
  })

  it('keeps the connection of user networking: the guest end is told to start anew', async () => {
    const device = await start({ exitWith: 'vmm', vms: [{ transport: 'usernet', ports: ['null,name=a'] }] })
    await (await device.client()).request('port.add', { spec: 'null,name=b' })
    const socket = await peer(device.started.vms[0]!.socket)
    const nonce = Buffer.alloc(NONCE_LEN, 1)
    const seen: string[] = []
    const reader = new FrameReader('guest', {
      greeted: (welcome) => {
        seen.push(welcome.nonce.equals(nonce) ? 'mine' : 'anew')
        if (seen.at(-1) === 'mine') reader.expect((welcome as Parameters<typeof encodeWelcome>[0]).tag)
      },
      frame: (type, _, payload) => {
        if (type === FRAME.ADD) seen.push(payload.toString('utf8', 4))
      },
      broken: () => seen.push('broken'),
    })
    socket.on('data', (chunk: Buffer) => reader.push(chunk))
    const greet = (): boolean => socket.write(encodeHello({ version: VERSION, window: 65_536, nonce }))
    greet()
    await until(() => seen.length === 3)
    await kill(device)
    await until(() => seen.at(-1) === 'anew')
    greet()
    await until(() => seen.length === 7)
    expect(seen).toEqual(['mine', 'a', 'b', 'anew', 'mine', 'a', 'b'])
    expect((await (await device.client()).request('vm.list', {}))[0]).toMatchObject({ attached: true, started: true })
    socket.destroy()
    expect(await device.exit()).toBe(0)
  })

  it('holds no descriptor of what has gone', async () => {
    const device = await start({ exitWith: 'parent' })
    const client = await device.client()
    await spare(device)
    let before = 0
    // It is being started.
    await until(async () => {
      before = device.fds
      await new Promise((resolve) => setTimeout(resolve, 100))
      return device.fds === before
    })
    for (let i = 0; i < 3; i++) {
      await client.request('port.add', { spec: `unix:${device.temp.path}/p.sock,name=p` })
      const socket = await peer(`${device.temp.path}/p.sock`)
      const vmm = spawn(process.execPath, [VMM, device.started.vms[0]!.socket], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      await once(vmm.stdout, 'data')
      expect(device.fds).toBeGreaterThan(before)
      vmm.kill('SIGKILL')
      await until(async () => !(await client.request('vm.list', {}))[0]!.attached)
      socket.destroy()
      await client.request('port.remove', { port: 'p' })
    }
    await until(() => device.fds === before)
  })

  it('gives up when a device process dies five times in a row at once, and says so', async () => {
    const device = await start()
    const socket = await peer(device.started.vms[0]!.socket)
    for (let i = 0; i < 4; i++) await kill(device)
    process.kill((await hello(device)).devicePid!, 'SIGKILL')
    expect(await device.exit()).toBe(70)
    expect(device.log).toMatch(/has died 5 times in a row, each time at once, the last time by SIGKILL: giving up/)
    if (!socket.destroyed) await once(socket.resume(), 'close')
  })

  it('is not needed by a device that lives', async () => {
    const device = await start({ exitWith: 'never' })
    const { devicePid } = await hello(device)
    process.kill(device.pid, 'SIGKILL')
    await device.exit()
    const client = await device.client()
    await client.request('port.add', { spec: 'null,name=late' })
    await until(() => device.log.includes('the keeper has gone'))
    process.kill(devicePid!, 'SIGTERM')
    await until(() => client.closed)
  })
})
