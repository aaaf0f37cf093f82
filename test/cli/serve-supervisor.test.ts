/** `vmchannel serve` and `qemu` when the supervisor of their device process is killed or stopped. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ControlClient } from '../../src/client/control-client.ts'
import { Served as ServedDevice } from '../../src/cli/serve-end.ts'
import type { StartedDevice } from '../../src/client/start.ts'
import { PROTOCOL_VERSION, type PortInfo, type ProcessInfo } from '../../src/daemon/protocol.ts'
import { Bench, collect, until, type Result } from './run.ts'

const VMM = new URL('../daemon/vmm-program.mjs', import.meta.url).pathname

let bench: Bench
const left: number[] = []
beforeEach(() => {
  bench = new Bench()
})
afterEach(async () => {
  for (const pid of left.splice(0)) if (alive(pid)) process.kill(pid, 'SIGKILL')
  await bench.close()
})

interface Served {
  child: ChildProcess
  ended: Promise<Result>
  hello: ProcessInfo & { devicePid: number }
  control: string
  socket: string
  log: () => string
}

async function serve(...args: string[]): Promise<Served> {
  const child = bench.start(['serve', '--json', '--port', `unix:${bench.path('a.sock')},name=a`, ...args])
  let text = ''
  let log = ''
  child.stdout!.on('data', (chunk) => (text += String(chunk)))
  child.stderr!.on('data', (chunk) => (log += String(chunk)))
  const ended = collect(child)
  await until('it is ready', () => text.includes('\n'))
  const { control, vms } = JSON.parse(text) as { control: string; vms: { socket: string }[] }
  const client = await ControlClient.connect(control)
  client.close()
  const hello = client.hello as Served['hello']
  expect(hello.devicePid).not.toBe(hello.pid)
  return { child, ended, hello, control, socket: vms[0]!.socket, log: () => log }
}

function alive(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)![0] !== 'Z'
  } catch {
    return false
  }
}

function stop(pid: number): void {
  left.push(pid)
  process.kill(pid, 'SIGSTOP')
}

const list = async (): Promise<PortInfo[]> =>
  JSON.parse((await bench.run(['port', 'list', '--json'])).stdout) as PortInfo[]

describe('serve whose supervisor is killed', () => {
  it('says so and stays: the device goes on, and ends at SIGTERM', async () => {
    const { child, ended, hello, socket, log } = await serve()
    const vmm = spawn(process.execPath, [VMM, socket], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(vmm.stdout, 'data')
    process.kill(hello.pid, 'SIGKILL')
    await until('the log says so', () => log().includes('goes on without one'))
    expect(
      log()
        .split('\n')
        .filter((line) => line.includes('nothing takes over')),
    ).toHaveLength(1)
    expect(log()).toContain(`(process ${hello.pid}) has ended (SIGKILL)`)
    expect(await list()).toMatchObject([{ name: 'a' }])
    const peer = connect(bench.path('a.sock'))
    await once(peer, 'connect')
    peer.destroy()
    expect([child.exitCode, vmm.exitCode, alive(hello.devicePid)]).toEqual([null, null, true])
    vmm.kill('SIGKILL')
    child.kill('SIGTERM')
    expect(await ended).toMatchObject({ status: 0, signal: null })
    expect(alive(hello.devicePid)).toBe(false)
    expect([existsSync(bench.path('a.sock')), readdirSync(bench.state)]).toEqual([false, []])
  })

  it('ends when its device process does', async () => {
    const { ended, hello, log } = await serve()
    process.kill(hello.pid, 'SIGKILL')
    await until('the log says so', () => log().includes('goes on without one'))
    process.kill(hello.devicePid, 'SIGKILL')
    expect(await ended).toMatchObject({ status: 11 })
    expect(log()).toContain('has ended by itself (without a supervisor)')
  })

  it('ends a device process that is stopped', async () => {
    const { child, ended, hello, log } = await serve()
    process.kill(hello.pid, 'SIGKILL')
    await until('the log says so', () => log().includes('goes on without one'))
    stop(hello.devicePid)
    child.kill('SIGTERM')
    expect(await ended).toMatchObject({ status: 0, signal: null })
    expect(alive(hello.devicePid)).toBe(false)
  })

  it('when it is killed itself, so does its device process end', async () => {
    const { child, hello, log } = await serve()
    process.kill(hello.pid, 'SIGKILL')
    await until('the log says so', () => log().includes('goes on without one'))
    child.kill('SIGKILL')
    await until('it has ended', () => !alive(hello.devicePid) && readdirSync(bench.state).length === 0)
  })
})

it('serve whose supervisor is stopped ends at SIGTERM', async () => {
  const { child, ended, hello } = await serve()
  stop(hello.pid)
  child.kill('SIGTERM')
  expect(await ended).toMatchObject({ status: 0, signal: null })
  expect([alive(hello.pid), alive(hello.devicePid)]).toEqual([false, false])
  expect([existsSync(bench.path('a.sock')), readdirSync(bench.state)]).toEqual([false, []])
})

it('a supervisor and a device process that do nothing of what they are told are killed, one after the other', async () => {
  const control = bench.path('control.sock')
  const hello = `{ protocol: ${PROTOCOL_VERSION}, version: '', stateDir: '', pid: process.pid, devicePid: process.pid }`
  const hangs = (code: string): ChildProcess => {
    const child = spawn(process.execPath, ['-e', `process.on('SIGTERM', () => {}); ${code}`])
    child.stderr.pipe(process.stderr)
    left.push(child.pid!)
    return child
  }
  const supervisor = hangs("setInterval(() => {}, 1000); console.log('up')")
  const device = hangs(
    `require('net').createServer((s) => s.on('error', () => {}).once('data', () =>
      s.write(JSON.stringify({ id: 1, result: ${hello} }) + '\\n'))).listen('${control}', () => console.log('up'))`,
  )
  await Promise.all([supervisor, device].map((child) => once(child.stdout!, 'data')))
  const served = new ServedDevice({ process: supervisor, controlSocket: control } as StartedDevice, true, () => {})
  const ended = served.ended()
  served.stop()
  expect(await ended).toBeUndefined()
  if (device.signalCode === null) await once(device, 'exit')
  expect([supervisor.signalCode, device.signalCode]).toEqual(['SIGKILL', 'SIGKILL'])
})

it('qemu whose supervisor is killed: the device goes on until the VMM leaves', async () => {
  // Attached as a QEMU is, and with what it inherits.
  const script = `cd '${bench.state}' && exec '${process.execPath}' '${VMM}' "$(find . -name '*.vfio.sock')"`
  const env = { VMCHANNEL_QEMU: bench.fakeQemu({ script }) }
  const qemu = bench.start(['qemu', '-virtioserial', `unix:${bench.path('a.sock')},name=a`], { env })
  await once(qemu.stdout!, 'data')
  const path = execFileSync('find', [bench.state, '-name', 'control.sock'], { encoding: 'utf8' }).trim()
  const client = await ControlClient.connect(path)
  const { pid, devicePid } = client.hello as Served['hello']
  expect(devicePid).not.toBe(pid)
  process.kill(pid, 'SIGKILL')
  await until('it has gone', () => !alive(pid))
  expect(await client.request('vm.list', {})).toMatchObject([{ attached: true }])
  await client.request('port.add', { spec: 'null,name=late' })
  expect((await list()).map(({ name }) => name)).toEqual(['a', 'late'])
  expect([qemu.exitCode, alive(devicePid)]).toEqual([null, true])
  qemu.kill('SIGKILL')
  await until('the device has ended', () => !alive(devicePid) && readdirSync(bench.state).length === 0)
})
