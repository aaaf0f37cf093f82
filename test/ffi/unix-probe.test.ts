/** Looking whether a socket is alive is never a peer: whoever listens sees nothing, whatever looks. */
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { openChardev } from '../../src/chardev/registry.ts'
import { DeviceProcess } from '../../src/daemon/device-process.ts'
import { holdDir } from '../../src/ffi/flock.ts'
import { makeOwnDir } from '../../src/daemon/own-dir.ts'
import { listenVfioUser } from '../../src/device/attach/vfio-user/server.ts'
import { VmchannelError } from '../../src/errors.ts'
import { listenUnix, type UnixListener } from '../../src/ffi/unix-listen.ts'
import { probeUnix } from '../../src/ffi/unix-probe.ts'
import { SILENT } from '../../src/log.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { FakePort, sleep } from '../chardev/tools.ts'
import { ToyFunction } from '../device/attach/vfio-user/toy-function.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmchannel-probe-'))
  vi.stubEnv('VMCHANNEL_STATE_DIR', join(folder, 'root'))
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

/** A socket file whose process has ended. */
function deadSocket(path: string): void {
  const program = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', program])
  expect(existsSync(path)).toBe(true)
}

test('tells open, dead and missing sockets apart', () => {
  const path = join(folder, 's')
  expect(probeUnix(path)).toBe('missing')
  const listener = listenUnix(path)
  expect(probeUnix(path)).toBe('open')
  expect(listener.accept()).toBeUndefined()
  listener.close()
  expect(probeUnix(path)).toBe('missing')
  deadSocket(path)
  expect(probeUnix(path)).toBe('dead')
  symlinkSync(path, join(folder, 'link'))
  expect(probeUnix(join(folder, 'link'))).toBe('dead')
})

describe('a second start sees that the first lives, and the first sees nothing', () => {
  const path = (): string => join(folder, 's')
  const starts: readonly [string, () => Promise<unknown>][] = [
    ['a port', () => openChardev({ kind: 'unix', path: path() }, new FakePort())],
    [
      'a socket for the VMM',
      () => listenVfioUser({ path: path(), memory: new GuestMemory(), function: new ToyFunction(), log: SILENT }),
    ],
    [
      'a control socket',
      () =>
        new DeviceProcess(SILENT, undefined, { stop() {}, deserted() {} }).start({
          vms: [],
          controlSocket: path(),
          exitWith: 'never',
          logLevel: 'error',
        }),
    ],
  ]
  test.each(starts)('%s', async (_, start) => {
    const listener = listenUnix(path())
    await expect(start()).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_IN_USE' })
    expect(listener.accept()).toBeUndefined()
    listener.close()
  })
})

test('a port whose peer is absent is told of none by a second start', async () => {
  const port = new FakePort()
  const spec = { kind: 'unix', path: join(folder, 'port') } as const
  port.open(await openChardev(spec, port))
  await expect(openChardev(spec, new FakePort())).rejects.toThrow(VmchannelError)
  await sleep(50)
  expect(port.events).toEqual([])
  port.chardev!.close()
})

test('state directories of dead processes are removed; those of living ones see nobody', () => {
  const root = join(folder, 'root')
  mkdirSync(root, { mode: 0o700 })
  const listeners: UnixListener[] = []
  const held: number[] = []
  for (const name of ['living', 'dead', 'starting', 'given-up', 'waiting', 'linked', 'link-lost']) {
    mkdirSync(join(root, name))
    const control = join(root, name, 'control.sock')
    if (name === 'living') listeners.push(listenUnix(control))
    if (name === 'dead') deadSocket(control)
    if (name === 'waiting') held.push(holdDir(join(root, name))!)
    if (name === 'given-up' || name === 'waiting') utimesSync(join(root, name), 1, 1)
    if (name === 'linked') {
      listeners.push(listenUnix(join(folder, 'elsewhere')))
      symlinkSync(join(folder, 'elsewhere'), control)
    }
    if (name === 'link-lost') symlinkSync(join(folder, 'gone'), control)
  }
  const own = makeOwnDir()
  expect(own).toBe(join(root, String(process.pid)))
  for (const name of ['living', 'starting', 'waiting', 'linked'])
    expect([name, existsSync(join(root, name))]).toEqual([name, true])
  for (const name of ['dead', 'given-up', 'link-lost'])
    expect([name, existsSync(join(root, name))]).toEqual([name, false])
  for (const fd of held) closeSync(fd)
  for (const listener of listeners) {
    expect(listener.accept()).toBeUndefined()
    listener.close()
  }
})
