/** Processes that hang: noticed, ended, replaced; and those that do not hang are left alone. Needs the build. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { createDevice } from '../../src/library/create-device.ts'
import { ControlClient } from '../../src/client/control-client.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { packetPair } from '../../src/ffi/socket-calls.ts'
import { sendPacket } from '../../src/keeper/channel.ts'
import { Heartbeat } from '../../src/keeper/heartbeat.ts'
import { Pulse, type Look } from '../../src/keeper/pulse.ts'
import { UnreadWork } from '../../src/keeper/unread-work.ts'
import { until } from '../daemon/device.ts'
import { TempDir } from '../daemon/temp-dir.ts'
import { stateOf, stop, Supervised } from './supervised.ts'

const open: Supervised[] = []
const children: ChildProcess[] = []
afterEach(async () => {
  for (const one of open.splice(0)) await one.close()
  for (const child of children.splice(0)) {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
})

async function start(config: Parameters<typeof Supervised.start>[0] = {}): Promise<Supervised> {
  const one = await Supervised.start(config)
  open.push(one)
  return one
}

function voluntarySwitches(pid: number): number {
  return Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1])
}

describe('a device process that hangs', () => {
  it('is replaced where it is stopped: its VMs go on', async () => {
    const one = await start({ vms: [{ ports: ['null,name=a'] }] })
    const { devicePid } = await one.hello()
    await stop(devicePid!)
    await one.restarted(1)
    expect(one.device.log).toMatch(/the device process \d+ hangs \(state T\)/)
    expect(one.device.log).toMatch(/has died \(hanging \(state T\)\): \d+ takes over/)
    expect(await one.ports()).toEqual(['a'])
  })

  it('does not keep its keeper from ending', async () => {
    const one = await start({ exitWith: 'never' })
    const { devicePid } = await one.hello()
    await stop(devicePid!)
    process.kill(one.keeper, 'SIGTERM')
    await one.device.exit()
    expect(stateOf(devicePid!)).toBeUndefined()
    expect(one.device.log).toContain('has not ended within 3 s: SIGKILL')
  })

  it('does not outlive its parent', async () => {
    const one = await start()
    const { devicePid } = await one.hello()
    await stop(devicePid!)
    one.device.started.stdin.end()
    await one.device.exit()
    expect(stateOf(devicePid!)).toBeUndefined()
  })

  const NODE = ['--no-warnings', '-e']
  async function hangs(code: string, sockets: ReadonlySet<number> = new Set()): Promise<string> {
    const child = spawn(process.execPath, [...NODE, `process.stdout.write('.');${code}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    children.push(child)
    await once(child.stdout, 'data')
    return new Promise((resolve) => {
      const beat = new Heartbeat(child.pid!, sockets, { ask() {}, hangs: (state) => resolve(state) })
      beat.answered()
      beat.ready()
    })
  }

  it('is noticed in an endless loop', async () => {
    expect(await hangs('for(;;);')).toBe('R')
  })

  it('is noticed in a system call that does not come back, where something waits for it', async () => {
    const { ours, theirs } = packetPair()
    sendPacket(theirs, 'K', 'work')
    try {
      expect(await hangs("require('fs').readSync(0, Buffer.alloc(1))", new Set([ours]))).toBe('S')
    } finally {
      closeFd(ours)
      closeFd(theirs)
    }
  })
})

describe('a device process that does not hang', () => {
  it('is neither asked nor woken while it is idle', async () => {
    const one = await start({ vms: [{ ports: ['attach,name=a'] }] })
    await one.spare()
    const { devicePid } = await one.hello()
    let woken = Infinity
    // The garbage collector tidies up once more.
    for (let i = 0; i < 8 && woken > 0; i++) {
      const before = voluntarySwitches(devicePid!)
      await new Promise((resolve) => setTimeout(resolve, 4000))
      woken = voluntarySwitches(devicePid!) - before
    }
    expect(woken).toBe(0)
  })

  it('is left alone after it was stopped together with its keeper', async () => {
    const one = await start()
    const { devicePid } = await one.hello()
    await stop(one.keeper)
    await stop(devicePid!)
    await new Promise((resolve) => setTimeout(resolve, 8000))
    process.kill(devicePid!, 'SIGCONT')
    process.kill(one.keeper, 'SIGCONT')
    await new Promise((resolve) => setTimeout(resolve, 3000))
    expect((await one.hello()).devicePid).toBe(devicePid)
  })

  it('is left alone with VMCHANNEL_HEARTBEAT=off', async () => {
    process.env['VMCHANNEL_HEARTBEAT'] = 'off'
    const one = await start().finally(() => delete process.env['VMCHANNEL_HEARTBEAT'])
    const { devicePid } = await one.hello()
    await stop(devicePid!)
    await new Promise((resolve) => setTimeout(resolve, 8000))
    expect(stateOf(devicePid!)).toBe('T')
    process.kill(devicePid!, 'SIGCONT')
  })
})

describe('what is concluded', () => {
  const asleep: Look = { late: false, traced: false, state: 'S', unread: false }
  const ready = (): Pulse => {
    const pulse = new Pulse()
    pulse.answered()
    pulse.ready()
    return pulse
  }

  it('nothing from sleep; a question from anything else; the end from five looks without an answer', () => {
    const pulse = ready()
    for (let i = 0; i < 100; i++) expect(pulse.look(asleep)).toBe('fine')
    for (const odd of [{ state: 'R' }, { state: 'T' }, { state: 'D' }, { unread: true }]) {
      expect(pulse.look({ ...asleep, ...odd })).toBe('ask')
      for (let i = 0; i < 4; i++) expect(pulse.look(asleep)).toBe('fine')
      pulse.answered()
      expect(pulse.look(asleep)).toBe('fine')
    }
    expect(pulse.look({ ...asleep, state: 'R' })).toBe('ask')
    for (let i = 0; i < 4; i++) expect(pulse.look(asleep)).toBe('fine')
    expect(pulse.look(asleep)).toBe('hangs')
  })

  it('nothing from looks at which the keeper was late, or a debugger had the process', () => {
    for (const excuse of [{ late: true }, { traced: true }]) {
      const pulse = ready()
      expect(pulse.look({ ...asleep, state: 'T' })).toBe('ask')
      for (let i = 0; i < 100; i++) {
        expect(pulse.look({ ...asleep, state: 'T', ...(i % 4 === 3 ? excuse : {}) })).toBe('fine')
      }
    }
  })

  it('more patience for one that starts', () => {
    const pulse = new Pulse()
    for (let i = 0; i < 29; i++) expect(pulse.look(asleep)).toBe('fine')
    expect(pulse.look(asleep)).toBe('hangs')
  })

  it('work is what is unread at two looks; what stays so on purpose counts now and then only', () => {
    const { ours, theirs } = packetPair()
    const work = new UnreadWork()
    const sockets = new Set([ours])
    expect([work.look(sockets), work.look(sockets)]).toEqual([false, false])
    sendPacket(theirs, 'K', 'work')
    const looks = Array.from({ length: 60 }, () => work.look(sockets))
    expect(looks.filter(Boolean)).toHaveLength(2)
    expect(looks.indexOf(true)).toBe(1)
    closeFd(ours)
    closeFd(theirs)
  })
})

describe('a keeper that is killed', () => {
  it('leaves a device of the library running, and hello says whom to signal', async () => {
    const temp = new TempDir()
    const device = await createDevice({ keeper: true, log: 'ignore', stateDir: `${temp.path}/state` })
    try {
      const client = await ControlClient.connect(device.controlSocket)
      const { pid, devicePid } = client.hello
      process.kill(pid, 'SIGKILL')
      await until(() => client.request('hello', {}).then((now) => now.pid === devicePid))
      expect((await client.request('port.add', { spec: 'null,name=late' })).name).toBe('late')
      client.close()
    } finally {
      await device.close()
      temp.remove()
    }
  })
})
