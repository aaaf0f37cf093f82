/** The library without a guest: starting, ending in every way, errors. Needs the build. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, expectTypeOf, it } from 'vitest'
import {
  connect,
  createDevice,
  listDevices,
  openDevice,
  VERSION,
  VmchannelError,
  type Device,
  type PortHandle,
  type PortStream,
} from '../../src/index.ts'
import { until } from '../daemon/device.ts'
import { TempDir } from '../daemon/temp-dir.ts'

const temp = new TempDir()
afterAll(() => temp.remove())
const program = (name: string): string => join(import.meta.dirname, 'programs', name)

function alive(pid: number): boolean {
  try {
    // A zombie is dead.
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

describe('createDevice', () => {
  it('starts a process and ends it', async () => {
    const device = await createDevice({ log: 'ignore' })
    expect(alive(device.pid)).toBe(true)
    expect(existsSync(device.socket)).toBe(true)
    expect(device.qemuArgs).toEqual([
      '-device',
      JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: device.socket } }),
    ])
    const closed = once(device, 'close')
    await device.close()
    expect(await closed).toEqual([undefined])
    expect(alive(device.pid)).toBe(false)
    expect(existsSync(device.controlSocket)).toBe(false)
    await device.close()
    await expect(device.ports()).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    await expect(device.waitForDriver()).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
  })

  it('over user networking: the same device with other arguments', async () => {
    await using device = await createDevice({ log: 'ignore', transport: 'usernet' })
    expect(device.qemuArgs.join(' ')).toMatch(
      /^-chardev socket,id=vmchannel-c,path=.*restrict=on,guestfwd=.*virtio-net/,
    )
    const port = await device.addPort({ name: 'org.example.0' })
    expect(port.name).toBe('org.example.0')
  })

  it('is disposed of by await using', async () => {
    let pid: number
    {
      await using device = await createDevice({ log: 'ignore' })
      pid = device.pid
    }
    expect(alive(pid)).toBe(false)
  })

  it('what cannot be is said, and nothing stays behind', async () => {
    const before = (await listDevices()).length
    await expect(createDevice({ maxPorts: 600 })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_USAGE' })
    await expect(createDevice({ name: 'a/b' })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_USAGE' })
    await expect(createDevice({ socket: '/no/such/dir/x.sock' })).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_CHARDEV',
    })
    await expect(createDevice({ queueSize: 100 })).rejects.toBeInstanceOf(VmchannelError)
    expect(await listDevices()).toHaveLength(before)
  })

  it('a signal ends the start', async () => {
    await expect(createDevice({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_ABORTED' })
    const stop = new AbortController()
    const start = createDevice({ signal: stop.signal, stateDir: join(temp.path, 'aborted') })
    setTimeout(() => stop.abort(), 20)
    await expect(start).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_ABORTED' })
    await until(() => !existsSync(join(temp.path, 'aborted')))
    await expect(createDevice({ signal: AbortSignal.timeout(5) })).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_TIMEOUT',
    })
  })

  it('takes no harm from options meant for this Node', async () => {
    const before = process.env['NODE_OPTIONS']
    process.env['NODE_OPTIONS'] = '--require=/no/such/file.cjs'
    try {
      await (await createDevice({ log: 'ignore' })).close()
    } finally {
      if (before === undefined) delete process.env['NODE_OPTIONS']
      else process.env['NODE_OPTIONS'] = before
    }
  })

  it('hands its log to a logger', async () => {
    const lines: string[] = []
    const note = (level: string) => (message: string) => void lines.push(`${level}: ${message}`)
    const log = { error: note('error'), warn: note('warn'), info: note('info'), debug: note('debug') }
    const device = await createDevice({ log, logLevel: 'info' })
    const path = join(temp.path, 'no-one.sock')
    await device.addPort({ chardev: `unix:${path},server=off,reconnect-ms=1000` })
    await until(() => lines.some((line) => line.startsWith('warn: ') && line.includes(path)))
    await device.close()
  })
})

describe('ports', () => {
  it('as streams and as handles, by type too', async () => {
    await using device = await createDevice({ log: 'ignore' })
    const stream = await device.addPort({ name: 'a' })
    const handle = await device.addPort({ name: 'b', chardev: 'null', id: 7 })
    expectTypeOf(stream).toEqualTypeOf<PortStream>()
    expectTypeOf(handle).toEqualTypeOf<PortHandle>()
    expect([stream.id, stream.name, handle.id, handle.name]).toEqual([1, 'a', 7, 'b'])
    expect((await handle.stats()).counters.guestToHostBytes).toBe(0)
    await expect(device.addPort({ name: 'a' })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_IN_USE' })
    await expect(device.addPort({ console: true, policy: 'block' })).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_USAGE',
    })
    await expect(handle.resize(80, 24)).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_PORT' })
    const console_ = await device.addPort({ console: true, cols: 80, rows: 24 })
    await console_.resize(132, 43)
    await device.removePort('b')
    await until(() => handle.removed)
    await handle.remove()
    await expect(handle.info()).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    expect((await device.ports()).map(({ port }) => port)).toEqual([0, 1])
  })

  it('a wait for the peer of a port can be given up, and leaves no port', async () => {
    await using device = await createDevice({ log: 'ignore' })
    const path = join(temp.path, 'patience.sock')
    const waiting = device.addPort({ chardev: `unix:${path},wait=on`, timeout: 100 })
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_TIMEOUT' })
    expect(await device.ports()).toEqual([])
  })

  it('end with their device, and everything that waits for them', async () => {
    const device = await createDevice({ log: 'ignore' })
    const port = await device.addPort({ name: 'a' })
    const wait = port.waitForGuest()
    wait.catch(() => {})
    const reason = once(device, 'close')
    const broken = new Promise<Error | undefined>((resolve) => {
      port.once('error', resolve)
      port.resume().once('close', () => resolve(undefined))
    })
    process.kill(device.pid, 'SIGKILL')
    expect((await reason)[0]).toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    await expect(wait).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    await broken
    expect(port.destroyed).toBe(true)
    await device.close()
    await expect(port.info()).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
  })

  it('destroy is at once', async () => {
    const device = await createDevice({ log: 'ignore' })
    const port = await device.addPort()
    const failed = once(port, 'error')
    device.destroy(new Error('enough'))
    expect((await failed)[0]).toMatchObject({ message: 'enough' })
    await until(() => !alive(device.pid))
  })
})

describe('finding devices', () => {
  it('by name, and what is said where there is no telling', async () => {
    await expect(openDevice({ vm: 'find-a' })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_NOT_FOUND' })
    await expect(openDevice({ control: '/no/such.sock' })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_NOT_FOUND' })
    await using a = await createDevice({ name: 'find-a', log: 'ignore' })
    await using b = await createDevice({ name: 'find-b', log: 'ignore' })
    const pids = (await listDevices()).map(({ pid }) => pid)
    expect(pids).toEqual(expect.arrayContaining([a.pid, b.pid]))
    await expect(openDevice()).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_USAGE',
      hint: expect.stringMatching(/find-a .*find-b/) as string,
    })
    const found = await openDevice({ vm: 'find-b' })
    expect(found.pid).toBe(b.pid)
    const port = await found.addPort({ name: 'shared' })
    expect((await b.ports())[0]!.name).toBe('shared')
    port.destroy()
    await found.close()
    expect(alive(b.pid)).toBe(true)
    await expect(connect({ vm: 'find-b', port: 'nothing' })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_NOT_FOUND' })
  })

  it('passes over what dead ones left, and the next start removes it', async () => {
    const device = await createDevice({ name: 'dead', log: 'ignore' })
    const folder = join(device.controlSocket, '..')
    process.kill(device.pid, 'SIGKILL')
    await once(device, 'close')
    await device.close()
    expect(readdirSync(folder)).toContain('control.sock')
    expect((await listDevices()).some(({ pid }) => pid === device.pid)).toBe(false)
    await (await createDevice({ log: 'ignore' })).close()
    expect(existsSync(folder)).toBe(false)
  })
})

describe('a program that ends', () => {
  it.each(['exit', 'throw', 'unref'])('by %s takes its device along', async (how) => {
    const state = join(temp.path, `state-${how}`)
    const run = await promisify(execFile)(process.execPath, [program('quick.mjs'), how, state]).catch(
      (error: unknown) => error as { stdout: string },
    )
    const pid = Number(run.stdout)
    expect(pid).toBeGreaterThan(0)
    await until(() => !alive(pid) && !existsSync(state))
  })

  it('by SIGKILL takes its device along', async () => {
    const state = join(temp.path, 'state-kill')
    const child = spawn(process.execPath, [program('quick.mjs'), 'stay', state], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const pid = Number(String((await once(child.stdout, 'data'))[0]))
    expect(alive(pid)).toBe(true)
    child.kill('SIGKILL')
    await until(() => !alive(pid) && !existsSync(state))
  })
})

describe('the package', () => {
  it('has the version of package.json', () => {
    const { version } = createRequire(import.meta.url)('../../package.json') as { version: string }
    expect(VERSION).toBe(version)
  })

  it('loads nothing native and no dependency', async () => {
    const script = `const { createDevice } = await import(${JSON.stringify(new URL('../../dist/src/index.js', import.meta.url).href)})
      const device = await createDevice({ log: 'ignore' }); const port = await device.addPort(); await device.close()
      console.log(JSON.stringify(process.report.getReport().sharedObjects.filter((name) => name.includes('node_modules'))))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
    expect(JSON.parse(stdout)).toEqual([])
  })

  it('types: a device is what it says', () => {
    expectTypeOf<Device['qemuArgs']>().toEqualTypeOf<string[]>()
    expectTypeOf(connect).returns.resolves.toEqualTypeOf<PortStream>()
  })

  it.each([
    ['512M', '512M'],
    ['2G', '2048M'],
    ['1GiB', '1024M'],
    [256 << 20, '256M'],
  ])('memoryArgs(%j)', async (size, words) => {
    const { sharedMemoryArgs } = await import('../../src/library/options.ts')
    expect(sharedMemoryArgs(size)).toEqual([
      '-m',
      words,
      '-object',
      `memory-backend-memfd,id=vmchannel-memory,size=${words},share=on`,
      '-machine',
      'memory-backend=vmchannel-memory',
    ])
    for (const bad of ['512', '1.5G', '', '-1M', 1000, Number.NaN, '1K'])
      expect(() => sharedMemoryArgs(bad)).toThrow(/MiB/)
  })
})
