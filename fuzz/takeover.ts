/**
 * A device process that is killed while it has any number of ports of any kind, after their files, sockets and peers
 * have come and gone: the next one has the same ports, names, places and peers, and so has the one after it. Numbers of
 * kept items are tried around what fits into the supervisor's socket at once.
 */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ControlClient } from '../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import type { PortInfo } from '../src/daemon/protocol.ts'
import { sendPacket } from '../src/keeper/channel.ts'
import { closeFd } from '../src/ffi/libc.ts'
import { packetPair } from '../src/ffi/socket-calls.ts'
import { Random } from './random.ts'
import type { FuzzSession, FuzzTarget } from './target.ts'

const STEPS = 6
const NEAR = 5
/** Five deaths in a row, each at once, and the supervisor gives up, as it should. */
const KILLS_MAX = 3
const TAKEOVER_MS = 20_000

type Ports = PortInfo[]

/** As many packets as a socket takes whose other end does not read. */
function fitting(): number {
  const pair = packetPair()
  let n = 0
  while (n < 100_000 && sendPacket(pair.ours, 'K', `item${n}`) === 'sent') n++
  closeFd(pair.ours)
  closeFd(pair.theirs)
  return n
}

class Life {
  readonly #device: StartedDevice
  readonly #folder: string
  readonly #r: Random
  readonly #peers: Socket[] = []
  readonly #paths: string[] = []
  #serial = 0

  constructor(device: StartedDevice, folder: string, r: Random) {
    this.#device = device
    this.#folder = folder
    this.#r = r
  }

  async #with<T>(work: (client: ControlClient) => Promise<T>): Promise<T> {
    const client = await ControlClient.connect(this.#device.controlSocket)
    try {
      return await work(client)
    } finally {
      client.close()
    }
  }

  async step(): Promise<void> {
    const r = this.#r
    switch (r.below(5)) {
      case 0:
      case 1: {
        const path = join(this.#folder, `p${this.#serial++}`)
        const kind = r.pick(['unix', 'unix', 'file', 'pipe', 'pty', 'null'])
        const spec = {
          unix: `unix:${path},mode=0660`,
          file: `file:${path}`,
          pipe: `pipe:${path}`,
          pty: `pty:${path}`,
          null: 'null',
        }[kind]!
        if (kind === 'pipe') execFileSync('mkfifo', [path])
        await this.#with((client) => client.request('port.add', { spec: `${spec},name=n${this.#serial}` }))
        if (kind !== 'null') this.#paths.push(path)
        if (kind === 'unix' && r.chance(60)) {
          const peer = createConnection(path)
          peer.on('error', () => {})
          await once(peer, 'connect')
          this.#peers.push(peer)
        }
        return
      }
      case 2: {
        const ports = await this.#list()
        if (ports.length > 1)
          await this.#with((client) => client.request('port.remove', { port: r.pick(ports.slice(1)).port }))
        return
      }
      case 3: {
        // A cleaner of temporary files comes by.
        const path = r.pick(this.#paths)
        if (path) rmSync(path, { force: true })
        return
      }
      default:
        this.#peers.pop()?.destroy()
    }
  }

  async #list(): Promise<Ports> {
    return this.#with((client) => client.request('port.list', {}))
  }

  /** Kills the device process; compares what the next one has. */
  async kill(): Promise<void> {
    await sleep(5) // peers that have come or gone are noticed
    const before = shown(await this.#list())
    const { devicePid, restarts } = await this.#with(async (client) => client.hello)
    process.kill(devicePid!, 'SIGKILL')
    const end = performance.now() + TAKEOVER_MS
    for (;;) {
      const { process: supervisor } = this.#device
      assert.equal(
        supervisor.exitCode,
        null,
        `nothing took over: the supervisor has ended with status ${supervisor.exitCode}`,
      )
      const now = await this.#with(async (client) => client.hello.restarts).catch(() => undefined)
      if (now !== undefined) {
        assert.equal(now, restarts! + 1, 'it took more than one process to take over')
        break
      }
      assert.ok(performance.now() < end, `nothing took over within ${TAKEOVER_MS / 1000} s`)
      await sleep(5)
    }
    assert.deepEqual(shown(await this.#list()), before, 'other ports after the takeover')
  }

  close(): void {
    for (const peer of this.#peers) peer.destroy()
  }
}

function shown(ports: Ports): string[] {
  return ports.map(({ port, name, place, hostConnected }) => `${port} ${name} ${place} ${hostConnected}`)
}

async function start(): Promise<FuzzSession> {
  const fits = fitting()
  return {
    async episode(seed) {
      const r = new Random(seed)
      const folder = mkdtempSync(join(tmpdir(), 'vmchannel-fuzz-'))
      // Some items are the device's own.
      const count = r.chance(50) ? 1 + r.below(5) : Math.max(1, fits - r.below(2 * NEAR))
      const device = await startDevice(
        {
          stateDir: join(folder, 'state'),
          vms: [{ name: 'alpha', maxPorts: 511, ports: Array.from({ length: count }, () => 'null') }],
          exitWith: 'parent',
          logLevel: 'error',
        },
        { stderr: 'ignore', keeper: true, timeoutMs: 120_000 },
      )
      const life = new Life(device, folder, r)
      let kills = 0
      try {
        for (let i = 0; i < STEPS && !r.ended; i++) {
          r.step()
          if (count <= 5) await life.step()
          if (kills < KILLS_MAX - 1 && r.chance(30)) {
            kills++
            await life.kill()
          }
        }
        await life.kill()
      } finally {
        life.close()
        device.stdin.end()
        const timer = setTimeout(() => device.process.kill('SIGKILL'), 5000)
        if (device.process.exitCode === null && device.process.signalCode === null) await once(device.process, 'exit')
        clearTimeout(timer)
        rmSync(folder, { recursive: true, force: true })
      }
      return STEPS
    },
    close() {},
  }
}

export const TAKEOVER: FuzzTarget = {
  name: 'takeover',
  title: 'device processes that are killed, whatever they have',
  turnMs: Infinity, // what it watches is in another process
  hangMs: 300_000,
  start,
}
