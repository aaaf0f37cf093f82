/** The device process is killed under a running guest, again and again: nobody loses a byte. Needs the build. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { portNode } from '../../lab/ports.ts'
import { startVmtest } from '../../lab/vmtest.ts'
import { ControlClient } from '../../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../../src/client/start.ts'
import { TempDir } from '../daemon/temp-dir.ts'
import { readBytes, until } from './rig.ts'

/** Twenty by hand. Five deaths in a row, each within a second, are the limit: hence the pauses. */
const KILLS = Number(process.env['VMCHANNEL_KILLS'] ?? 5)
const PAUSE_MS = 1500
const PORTS = ['up', 'down', 'echo', 'ping', 'idle']

describe('a device process with a keeper, and a guest', () => {
  const temp = new TempDir()
  let device: StartedDevice
  let machine: Machine
  let log = ''

  beforeAll(async () => {
    const [qemu, kernel] = [await ensureQemu(), await ensureKernel('6.1')]
    device = await startDevice(
      {
        stateDir: join(temp.path, 'state'),
        vms: [{ ports: PORTS.map((name) => `unix:${temp.path}/${name}.sock,name=${name}`) }],
        exitWith: 'vmm',
        logLevel: 'info',
      },
      { detached: true, keeper: true, stderr: 'pipe' },
    )
    device.stderr!.setEncoding('utf8').on('data', (text: string) => (log += text))
    machine = await Machine.boot({
      qemu: qemu.path,
      kernel,
      machineType: 'q35,memory-backend=mem',
      args: ['-object', 'memory-backend-memfd,id=mem,size=256M,share=on', ...device.vms[0]!.qemuArgs],
    })
  })
  afterAll(async () => {
    if (process.env['VMCHANNEL_KEEPER_LOG']) console.log(log)
    await machine?.close()
    temp.remove()
  })

  async function peer(name: string): Promise<Socket> {
    const socket = connect(join(temp.path, `${name}.sock`))
    await once(socket, 'connect')
    return socket
  }

  async function ask<T>(work: (client: ControlClient) => Promise<T>): Promise<T> {
    const client = await ControlClient.connect(device.controlSocket)
    try {
      return await work(client)
    } finally {
      client.close()
    }
  }

  /** Kills the device process; resolves when its successor answers. */
  async function kill(): Promise<number> {
    const { devicePid, restarts = 0 } = await ask(async (client) => client.hello)
    const start = performance.now()
    process.kill(devicePid!, 'SIGKILL')
    await until(async () => {
      const now = await ask(async (client) => client.hello).catch(() => undefined)
      return now !== undefined && now.restarts === restarts + 1
    }, 'the successor answers')
    return performance.now() - start
  }

  it('dies idle: ports, names, who is open and the connection are as before', async () => {
    const socket = await peer('idle')
    const node = await portNode(machine, 'idle')
    const job = machine.spawn(`cat ${node}`)
    socket.write('one\n')
    await job.waitForOutput(/one/)
    const before = await ask((client) => client.request('port.list', {}))
    await kill()
    expect(await ask((client) => client.request('port.list', {}))).toEqual(before)
    socket.write('two\n')
    await job.waitForOutput(/^one\ntwo\n$/)
    job.kill(9)
    await job.wait()
    const answer = readBytes(socket, 6)
    await machine.sh(`echo three > ${node}`)
    expect(String(await answer)).toBe('three\n')
    socket.destroy()
    await until(async () => {
      const ports = await ask((client) => client.request('port.list', {}))
      return ports.every(({ hostConnected }) => !hostConnected)
    }, 'the successor sees the peer go')
  })

  it('takes a new peer and a new port after that, and keeps them', async () => {
    await ask((client) => client.request('port.add', { spec: `unix:${temp.path}/late.sock,name=late` }))
    const node = await portNode(machine, 'late')
    await kill()
    const socket = await peer('late')
    const answer = readBytes(socket, 5)
    await machine.sh(`echo late > ${node}`)
    expect(String(await answer)).toBe('late\n')
    socket.destroy()
    await ask((client) => client.request('port.remove', { port: 'late' }))
    expect(existsSync(join(temp.path, 'late.sock'))).toBe(false)
    await kill()
    await until(async () => (await machine.run(`test -e ${node}`)).status !== 0, 'the port is gone')
  })

  it(
    `${KILLS} kills under full load both ways: no byte lost, none twice`,
    async () => {
      const [up, down, echo, ping] = await Promise.all(['up', 'down', 'echo', 'ping'].map((name) => peer(name)))
      const [upNode, downNode, echoNode, pingNode] = [
        await portNode(machine, 'up'),
        await portNode(machine, 'down'),
        await portNode(machine, 'echo'),
        await portNode(machine, 'ping'),
      ]
      const received = verify(up!, 'guest to host')
      const source = machine.spawn(`vmtest source ${upNode} 1000g 32k`)
      const sink = await startVmtest(machine, 'sink', [downNode, '1000g'])
      const sent = flood(down!)
      await startVmtest(machine, 'echo', [echoNode, '1000g', '64k'])
      const echoed = verify(echo!, 'echo')
      const echoSent = flood(echo!)
      await startVmtest(machine, 'echo', [pingNode, '1000g', 64])
      const latency = pinger(ping!)
      const outages: number[] = []
      const takeovers: number[] = []
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
      for (let i = 0; i < KILLS; i++) {
        latency.reset()
        const at = [received.bytes, sent.bytes, echoed.bytes]
        takeovers.push(Math.round(await kill()))
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS + Math.random() * 200))
        outages.push(Math.round(latency.worst))
        expect(received.error ?? echoed.error).toBeUndefined()
        expect(received.bytes, 'guest to host goes on').toBeGreaterThan(at[0]!)
        expect(sent.bytes, 'host to guest goes on').toBeGreaterThan(at[1]!)
        expect(echoed.bytes, 'echo goes on').toBeGreaterThan(at[2]!)
      }
      source.kill(9)
      sent.stop()
      down!.end()
      const { bytes, sha256 } = await sink.result(60_000)
      expect(bytes).toBe(sent.bytes)
      expect(sha256).toBe(patternSha256(sent.bytes))
      echoSent.stop()
      await until(() => echoed.bytes === echoSent.bytes, 'the echo is complete', 60_000)
      const stats = await ask((client) => client.request('port.stats', {}))
      const repeated = stats.map(({ counters }) => counters.guestToHostRepeated)
      console.log(
        `${KILLS} kills: worst round trip ${outages.join(' ')} ms; successor answered after ${takeovers.join(' ')} ms; ` +
          `${[received, sent, echoed].map(({ bytes }) => Math.round(bytes / 2 ** 20)).join(', ')} MiB up, down, echoed`,
      )
      expect(repeated).toEqual(repeated.map(() => 0))
      for (const socket of [up, down, echo, ping]) socket!.destroy()
    },
    KILLS * PAUSE_MS * 3 + 120_000,
  )

  it('ends with its VMM, and leaves nothing', async () => {
    process.kill(machine.pid, 'SIGKILL')
    if (device.process.exitCode === null) await once(device.process, 'exit')
    expect(device.process.exitCode).toBe(0)
    expect(existsSync(join(temp.path, 'up.sock'))).toBe(false)
    expect(existsSync(join(temp.path, 'state'))).toBe(false)
  })
})

interface Verified {
  bytes: number
  error: string | undefined
}

/** Compares all that comes with the pattern. */
function verify(socket: Socket, what: string): Verified {
  const pattern = new Pattern()
  const state: Verified = { bytes: 0, error: undefined }
  socket.on('data', (chunk: Buffer) => {
    if (state.error !== undefined) return
    if (!pattern.take(chunk.length).equals(chunk)) state.error = `${what}: wrong bytes after ${state.bytes}`
    state.bytes += chunk.length
  })
  return state
}

/** Sends the pattern as fast as it goes. */
function flood(socket: Socket): { readonly bytes: number; stop(): void } {
  const pattern = new Pattern()
  let bytes = 0
  let stopped = false
  const push = (): void => {
    for (let more = !stopped; more;) {
      const chunk = pattern.take(64 << 10)
      bytes += chunk.length
      more = socket.write(chunk)
    }
  }
  socket.on('drain', push)
  push()
  return {
    get bytes() {
      return bytes
    },
    stop() {
      stopped = true
    },
  }
}

/** One byte there and back, again and again; the worst time. */
function pinger(socket: Socket): { readonly worst: number; reset(): void } {
  let worst = 0
  let since = performance.now()
  socket.on('data', () => {
    worst = Math.max(worst, performance.now() - since)
    setTimeout(() => {
      since = performance.now()
      socket.write('x')
    }, 5)
  })
  socket.write('x')
  return {
    get worst() {
      return worst
    },
    reset() {
      worst = 0
    },
  }
}
