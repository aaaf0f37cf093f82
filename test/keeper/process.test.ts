/** The keeper beside its device process: how they start, end, and die. Needs the build. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ControlClient } from '../../src/client/control-client.ts'
import { startDevice } from '../../src/client/start.ts'
import type { DaemonConfig, ProcessInfo } from '../../src/daemon/protocol.ts'
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

  it('holds no descriptor of what has gone', async () => {
    const device = await start({ exitWith: 'parent' })
    const client = await device.client()
    const before = device.fds
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
