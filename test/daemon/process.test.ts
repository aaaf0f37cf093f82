/** How a device process starts, and all the ways in which it ends. Needs the build. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { ControlClient } from '../../src/client/control-client.ts'
import { startDevice } from '../../src/client/start.ts'
import type { DaemonConfig } from '../../src/daemon/protocol.ts'
import { TestDevice, until } from './device.ts'
import { TempDir } from './temp-dir.ts'

const MAIN = new URL('../../dist/src/daemon/main.js', import.meta.url).pathname
const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const thing of open.splice(0)) await thing.close()
})

async function start(config: Partial<DaemonConfig> = {}): Promise<TestDevice> {
  const device = await TestDevice.start(config)
  open.push(device)
  return device
}

/** Runs the entry as it is, with anything on its standard input. */
async function run(input: string): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN])
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (data) => (stdout += String(data)))
  child.stderr.on('data', (data) => (stderr += String(data)))
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const [status] = (await once(child, 'close')) as [number | null]
  return { status, stdout, stderr }
}

async function attachVmm(socket: string): Promise<ChildProcess> {
  const vmm = spawn(process.execPath, [join(import.meta.dirname, 'vmm-program.mjs'), socket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  expect(String((await once(vmm.stdout, 'data'))[0])).toBe('attached\n')
  return vmm
}

/** Connects to the VMM's socket and hangs up, which is a line of the log each time. */
async function look(device: TestDevice, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const looker = connect(device.started.vms[0]!.socket)
    await once(looker, 'connect')
    looker.resume().end()
    await once(looker, 'close')
  }
}

describe('start', () => {
  it.each([
    ['', 2, 'no JSON object'],
    ['garbage\n', 2, 'no JSON object'],
    ['{}\n', 2, 'vms'],
    ['{"vms":[],"exitWith":"vmm","logLevel":"loud"}\n', 2, 'logLevel'],
    ['{"vms":[{"ports":[],"color":1}],"exitWith":"vmm","logLevel":"warn"}\n', 2, 'color'],
    ['{"vms":[{"ports":["unix:"]}],"exitWith":"vmm","logLevel":"warn"}', 2, 'vm vm0, port 1'],
    [
      '{"vms":[{"name":"a","ports":[]},{"name":"a","ports":[]}],"exitWith":"vmm","logLevel":"warn"}',
      4,
      'already in use',
    ],
    ['{"stateDir":"/no/such/dir","vms":[],"exitWith":"vmm","logLevel":"warn"}', 2, 'state directory'],
  ])('%j is refused with status %i', async (input, status, text) => {
    const { stdout, ...result } = await run(input)
    const { error } = JSON.parse(stdout) as { error: { code: string; message: string } }
    expect(error.message).toContain(text)
    expect(result.status).toBe(status)
    expect(result.stderr).toBe('')
  })

  it('everything or nothing', async () => {
    const temp = new TempDir()
    const ports = [`unix:${temp.path}/a.sock`, `pty:${temp.path}/tty`, 'unix:/no/such/dir/b.sock']
    const config: DaemonConfig = {
      stateDir: join(temp.path, 'state'),
      vms: [{ ports: [] }, { ports }],
      exitWith: 'parent',
      logLevel: 'warn',
    }
    await expect(startDevice(config)).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_CHARDEV',
      hint: expect.any(String) as string,
    })
    await until(() => readdirSync(temp.path).length === 0)
    temp.remove()
  })

  it("a socket that is in use stays its owner's", async () => {
    const first = await start()
    const socket = first.started.vms[0]!.socket
    const config: DaemonConfig = { vms: [{ socket, ports: [] }], exitWith: 'parent', logLevel: 'warn' }
    await expect(startDevice(config)).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_IN_USE' })
    const second: DaemonConfig = { vms: [], controlSocket: first.control, exitWith: 'parent', logLevel: 'warn' }
    await expect(startDevice(second)).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_IN_USE' })
    await (await first.client()).request('hello', {})
    expect(existsSync(socket)).toBe(true)
  })

  it('a state directory that others may write to is not used', async () => {
    const temp = new TempDir()
    const stateDir = join(temp.path, 'state')
    mkdirSync(stateDir)
    chmodSync(stateDir, 0o777)
    const config: DaemonConfig = { stateDir, vms: [], exitWith: 'parent', logLevel: 'warn' }
    await expect(startDevice(config)).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_USAGE',
      message: expect.stringContaining('0777') as string,
    })
    chmodSync(stateDir, 0o700)
    writeFileSync(join(stateDir, 'mine'), 'x')
    const started = await startDevice(config)
    started.stdin.end()
    await once(started.process, 'exit')
    expect(readdirSync(stateDir)).toEqual(['mine'])
    temp.remove()
  })

  it('stays small with 31 ports', async () => {
    const ports = Array.from({ length: 30 }, (_, i) => `attach,name=port-${i + 1}`)
    const device = await start({ vms: [{ ports: ['attach,console=on', ...ports] }] })
    console.log(`31 ports: ${device.memory('VmRSS')} kB resident, ${device.memory('RssAnon')} kB of its own`)
    expect(device.memory('VmRSS')).toBeLessThan(100 << 10)
  })
})

describe('end', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const)('%s: everything is removed', async (signal) => {
    const device = await start({ vms: [{ ports: [] }] })
    const { path } = device.temp
    const client = await device.client()
    await client.request('port.add', { spec: `unix:${path}/a.sock` })
    const { place } = await client.request('port.add', { spec: `pty:${path}/tty` })
    expect(readlinkSync(join(path, 'tty'))).toBe(place)
    process.kill(device.pid, signal)
    expect(await device.exit()).toBe(0)
    expect(readdirSync(path)).toEqual([])
  })

  it('with its parent: standard input', async () => {
    const device = await start()
    device.started.stdin.write('more of it is not looked at\n')
    await (await device.client()).request('hello', {})
    device.started.stdin.end()
    expect(await device.exit()).toBe(0)
    expect(existsSync(device.stateDir)).toBe(false)
  })

  it.each(['SIGKILL', 'SIGTERM'] as const)('with its VMM, ended by %s', async (signal) => {
    const device = await start({ exitWith: 'vmm' })
    const vmm = await attachVmm(device.started.vms[0]!.socket)
    vmm.kill(signal)
    expect(await device.exit()).toBe(0)
    expect(existsSync(device.stateDir)).toBe(false)
  })

  it("not with somebody who only looks at the VMM's socket", async () => {
    const device = await start({ exitWith: 'vmm' })
    const { socket } = device.started.vms[0]!
    const looker = connect(socket)
    await once(looker, 'connect')
    looker.destroy()
    const client = await device.client()
    expect((await client.request('vm.list', {}))[0]!.attached).toBe(false)
    const vmm = await attachVmm(socket)
    expect((await client.request('vm.list', {}))[0]!.attached).toBe(true)
    vmm.kill('SIGKILL')
    expect(await device.exit()).toBe(0)
  })

  it('without a VMM: after a while, with a status that says so', async () => {
    const device = await start({ exitWith: 'vmm', connectTimeoutMs: 300 })
    expect(await device.exit()).toBe(13)
    expect(device.log).toContain('no VMM has connected within 0.3 s')
    expect(existsSync(device.stateDir)).toBe(false)
  })

  it('goes on for the next VMM where it was told to', async () => {
    const device = await start({ exitWith: 'parent' })
    const client = await device.client()
    const before = device.fds
    for (let i = 0; i < 3; i++) {
      const vmm = await attachVmm(device.started.vms[0]!.socket)
      vmm.kill('SIGKILL')
      await until(async () => !(await client.request('vm.list', {}))[0]!.attached)
    }
    expect(device.fds).toBe(before)
  })
})

describe('when things go wrong', () => {
  it('a bug: said, cleaned up after, status 70', async () => {
    const temp = new TempDir()
    const made = join(temp.path, 'made')
    const script = `import { writeFileSync, unlinkSync } from 'node:fs'
      const { Exit } = await import(${JSON.stringify(new URL('../../dist/src/daemon/exit.js', import.meta.url).href)})
      const log = { error: (text) => process.stderr.write(text), info() {} }
      writeFileSync(${JSON.stringify(made)}, '')
      new Exit(log).use(log, () => unlinkSync(${JSON.stringify(made)}))
      setTimeout(() => { throw new Error('a mistake of ours') }, 10)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'inherit', 'pipe'],
    })
    let stderr = ''
    child.stderr.on('data', (data) => (stderr += String(data)))
    expect((await once(child, 'close'))[0]).toBe(70)
    expect(stderr).toContain('a mistake of ours')
    expect(existsSync(made)).toBe(false)
    temp.remove()
  })

  it('out of descriptors: others wait, nothing spins, and it comes back', async () => {
    const temp = new TempDir()
    const child = spawn('/bin/sh', ['-c', `ulimit -n 80; exec "${process.execPath}" "${MAIN}"`], {
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    const config: DaemonConfig = {
      stateDir: join(temp.path, 's'),
      vms: [{ ports: [] }],
      exitWith: 'parent',
      logLevel: 'warn',
    }
    child.stdin.write(`${JSON.stringify(config)}\n`)
    await once(child.stdout, 'data')
    const path = join(temp.path, 's', 'control.sock')
    const crowd = Array.from({ length: 90 }, () => connect(path))
    await Promise.all(crowd.map((socket) => once(socket, 'connect')))
    await new Promise((resolve) => setTimeout(resolve, 1500))
    const stat = (): number => Number(readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(' ')[13])
    const before = stat()
    await new Promise((resolve) => setTimeout(resolve, 1500))
    expect(stat() - before).toBeLessThan(10) // ticks of 10 ms
    for (const socket of crowd) socket.destroy()
    const client = await ControlClient.connect(path)
    expect(client.hello.pid).toBe(child.pid)
    client.close()
    child.stdin.end()
    expect((await once(child, 'exit'))[0]).toBe(0)
    temp.remove()
  })

  it('another user is turned away, even where the directory and the socket are open', async ({ skip }) => {
    if (process.getuid?.() !== 0) return skip('only root can be another user')
    const device = await start()
    chmodSync(device.temp.path, 0o755)
    chmodSync(device.stateDir, 0o755)
    chmodSync(device.control, 0o777)
    const script = `const socket = require('net').connect(${JSON.stringify(device.control)})
      socket.on('connect', () => socket.write('{"id":1,"method":"hello"}\\n')).on('data', (data) => console.log('data', String(data)))
      socket.on('error', (error) => console.log(error.code)).on('close', () => console.log('closed'))`
    const child = spawn(process.execPath, ['-e', script], {
      uid: 65534,
      gid: 65534,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let stdout = ''
    child.stdout.on('data', (data) => (stdout += String(data)))
    await once(child, 'close')
    expect(stdout).toMatch(/^((EPIPE|ECONNRESET)\n)?closed\n$/)
    await until(() => device.log.includes('user 65534'))
    await (await device.client()).request('hello', {})
  })
})

describe('standard descriptors', () => {
  it("the caller's pipes are let go of", async () => {
    const device = await start({ exitWith: 'never' })
    const target = (fd: number): string => readlinkSync(`/proc/${device.pid}/fd/${fd}`)
    expect([target(0), target(1)]).toEqual(['/dev/null', '/dev/null'])
    process.kill(device.pid, 'SIGTERM')
    await device.exit()
  })

  it('a log reader that has gone does no harm', async () => {
    const device = await start({ logLevel: 'debug' })
    device.started.stderr!.destroy()
    const client = await device.client()
    await look(device, 20)
    await client.request('hello', {})
  })

  it('a log reader that does not read does no harm, and is told what it missed', async () => {
    const device = await start({ logLevel: 'debug', logFormat: 'text' })
    const stderr = device.started.stderr!
    stderr.pause()
    const client = await device.client()
    await look(device, 600)
    await client.request('hello', {}, { timeout: 2000 })
    stderr.resume()
    await new Promise((resolve) => setTimeout(resolve, 300))
    await look(device, 1)
    await until(() => /\d+ log lines were left out here/.test(device.log))
    const lines = device.log.split('\n').filter((line) => line !== '')
    expect(lines.length).toBeLessThan(300)
  })

  it('a terminal can be a port', async () => {
    const temp = new TempDir()
    writeFileSync(join(temp.path, 'in'), '')
    const child = spawn(process.execPath, [MAIN], { stdio: ['pipe', 'pipe', 'inherit', 'pipe', 'pipe'] })
    const config: DaemonConfig = {
      stateDir: join(temp.path, 'state'),
      vms: [{ ports: ['stdio,name=a'] }],
      exitWith: 'never',
      logLevel: 'warn',
      terminal: { input: 3, output: 4 },
    }
    child.stdin!.end(`${JSON.stringify(config)}\n`)
    const { ready } = JSON.parse(String((await once(child.stdout!, 'data'))[0])) as { ready: { pid: number } }
    const target = (fd: number): string => readlinkSync(`/proc/${ready.pid}/fd/${fd}`)
    expect([target(0), target(1)]).toEqual([expect.stringContaining('socket:'), expect.stringContaining('socket:')])
    expect(target(0)).not.toBe(target(1))
    child.kill('SIGTERM')
    await once(child, 'exit')
    temp.remove()
  })

  it('a process of its own session where it is asked for', async () => {
    const temp = new TempDir()
    const started = await startDevice(
      { stateDir: join(temp.path, 's'), vms: [], exitWith: 'parent', logLevel: 'warn' },
      { detached: true },
    )
    const stat = readFileSync(`/proc/${started.pid}/stat`, 'utf8')
    const [, , , session] = stat.slice(stat.lastIndexOf(')')).split(' ')
    expect(Number(session)).toBe(started.pid)
    started.stdin.end()
    await once(started.process, 'exit')
    temp.remove()
  })
})
