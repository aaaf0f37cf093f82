/** A takeover uses what was inherited and nothing else; what cannot come back goes alone. */
import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { DeviceProcess } from '../../src/daemon/device-process.ts'
import type { KeeperLink } from '../../src/daemon/keeper-link.ts'
import type { Store } from '../../src/store.ts'
import { VERSION } from '../../src/version.ts'
import { until } from '../daemon/device.ts'
import { TempDir } from '../daemon/temp-dir.ts'
import { peer, Supervised } from './supervised.ts'

const open: Supervised[] = []
afterEach(async () => {
  for (const one of open.splice(0)) await one.close()
})

it('no path is looked at, whatever has become of it: sockets, fifos, files, links, the state directory', async () => {
  const one = await Supervised.start({ vms: [{ name: 'a', ports: [] }] })
  open.push(one)
  const { path } = one.device.temp
  const place = join(path, 'ports')
  mkdirSync(place)
  spawnSync('mkfifo', ['both.in', 'both.out', 'single'], { cwd: place })
  const client = await one.device.client()
  for (const spec of [
    `unix:${place}/unix.sock,mode=0660,name=unix`,
    `pipe:${place}/both,name=both`,
    `pipe:${place}/single,name=single`,
    `file:${place}/out,input-path=${place}/single,name=file`,
    `pty:${place}/tty,name=pty,console=on`,
    'tcp:localhost:0,name=tcp',
  ])
    await client.request('port.add', { spec })
  const socket = await peer(`${place}/unix.sock`)
  const connected = async (): Promise<boolean> => {
    const ports = await (await one.device.client()).request('port.list', {})
    return ports.find(({ name }) => name === 'unix')!.hostConnected
  }
  await until(connected)
  const before = await client.request('port.list', {})
  const { devicePid } = await one.hello()
  rmSync(place, { recursive: true })
  // What was at the end of a path may be anything now.
  mkdirSync(join(place, 'unix.sock'), { recursive: true })
  renameSync(one.device.stateDir, `${path}/elsewhere`)
  process.kill(devicePid!, 'SIGKILL')
  await one.logged('taken over after')
  renameSync(`${path}/elsewhere`, one.device.stateDir)
  expect(await (await one.device.client()).request('port.list', {})).toEqual(before)
  socket.destroy()
  await until(async () => !(await connected()))
  // Nor is anything removed that is not its own.
  await (await one.device.client()).request('port.remove', { port: 'unix' })
  rmSync(join(place, 'unix.sock'), { recursive: true })
})

it('a connection that was given by number is not taken for a new one', async () => {
  const one = await Supervised.start({ vms: [{ ports: ['null'] }] })
  open.push(one)
  const { path } = one.device.temp
  const client = await one.device.client()
  const { createServer } = await import('node:net')
  const server = createServer().listen(`${path}/server`)
  await once(server, 'listening')
  const peers = once(server, 'connection')
  await client.request('port.add', { spec: `unix:${path}/server,server=off,reconnect-ms=60000,name=dial` })
  const [connection] = (await peers) as [import('node:net').Socket]
  // The server is gone: a takeover does not wait for it, and has the connection.
  server.close()
  rmSync(`${path}/server`, { force: true })
  await one.kill()
  const port = (await (await one.device.client()).request('port.list', {})).find(({ name }) => name === 'dial')
  expect(port!.hostConnected).toBe(true)
  connection.destroy()
})

describe('what cannot be taken over', () => {
  /** What a process before has left, by name: notes only. */
  class Left implements Store {
    readonly notes: Map<string, string>
    readonly prefix: string
    constructor(notes: Map<string, string>, prefix = '') {
      this.notes = notes
      this.prefix = prefix
    }
    recall(name: string): { fds: number[]; note: string } | undefined {
      const note = this.notes.get(this.prefix + name)
      this.notes.delete(this.prefix + name)
      return note === undefined ? undefined : { fds: [], note }
    }
    left(): string[] {
      const names = [...this.notes.keys()].filter((name) => name.startsWith(this.prefix))
      return names.map((name) => name.slice(this.prefix.length))
    }
    keep(): void {}
    forget(): void {}
    clear(): void {}
    scope(name: string): Store {
      return new Left(this.notes, `${this.prefix}${name}/`)
    }
  }

  it('goes alone: a port, a VM; each with its reason in the log', async () => {
    const temp = new TempDir()
    const lines: string[] = []
    const port = (id: number, path: string): string =>
      JSON.stringify({ id, name: `p${id}`, chardev: { kind: 'unix', path } })
    const left = new Left(
      new Map([
        ['state-dir', JSON.stringify({ path: temp.path, made: false, version: VERSION })],
        ['vm/a/port/1', port(1, `${temp.path}/1`)],
        ['vm/a/port/2', port(2, '/no/such/directory/2')],
        ['vm/a/port/3', port(3, `${temp.path}/3`)],
        ['vm/a/options', JSON.stringify({ name: 'a' })],
        ['vm/b/options', JSON.stringify({ name: 'b', socket: '/no/such/directory/b' })],
        ['vm/c/options', JSON.stringify({ name: 'c' })],
      ]),
    )
    const link = Object.assign(left, {
      resumed: true,
      inheritance: { restarts: 1, why: 'a test', diedAt: Date.now() },
      ready: () => lines.push('ready'),
    }) as unknown as KeeperLink
    const say = (line: string): void => void lines.push(line)
    const log = { error: say, warn: say, info() {}, debug() {} }
    const device = new DeviceProcess(log, link, { stop() {}, deserted() {} })
    try {
      await device.start({ vms: [], exitWith: 'never', logLevel: 'info' })
      expect(device.vms.map(({ vm }) => vm)).toEqual(['a', 'c'])
      expect(device.vm('a').ports.map(({ id }) => id)).toEqual([1, 3])
      const said = lines.join('\n')
      expect(said).toMatch(/port 2 cannot be taken over, and is removed: .*\/no\/such\/directory\/2/)
      expect(said).toMatch(/VM b cannot be taken over, and ends: .*\/no\/such\/directory\/b/)
      expect(said).toContain('ready')
    } finally {
      device.close()
      temp.remove()
    }
  })

  it('is not taken over by another version', async () => {
    const note = JSON.stringify({ path: '/nowhere', made: true, version: '0.0.0' })
    const link = Object.assign(new Left(new Map([['state-dir', note]])), { resumed: true }) as unknown as KeeperLink
    const device = new DeviceProcess({ error() {}, warn() {}, info() {}, debug() {} }, link, {
      stop() {},
      deserted() {},
    })
    await expect(device.start({ vms: [], exitWith: 'never', logLevel: 'info' })).rejects.toThrow(
      /cannot go on where 0\.0\.0 was/,
    )
  })
})
