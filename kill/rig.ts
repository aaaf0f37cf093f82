/**
 * A device process with its keeper, a guest, and the host's peers: everything that a life needs, and the model of what
 * has to be there after each step.
 */

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { attachPort } from '../src/client/attach.ts'
import { ControlClient } from '../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import type { PortStats } from '../src/daemon/protocol.ts'
import { closeFd } from '../src/ffi/libc.ts'
import { makePipe } from '../src/ffi/pipe.ts'
import { Random } from '../fuzz/random.ts'
import { Driver, QUEUE_SIZE } from './driver.ts'
import { Guest, VECTORS, type MapName } from './guest.ts'
import { FilePeer, SocketPeer, type Peer } from './peers.ts'

export const WAIT_MS = 10_000
const POLL_MS = 2

export interface ModelPort {
  readonly id: number
  readonly name: string
  readonly console: boolean
  readonly kind: 'unix' | 'tcp' | 'pipe' | 'pty' | 'attach'
  /** Repeats and losses are counted, not prevented. */
  readonly lossy: boolean
  peer: Peer | undefined
  /** What PORT_OPEN says. */
  readonly openForGuest: boolean
  /** Of the peer's coming and going, for the device: a fifo is always there. */
  connected: boolean
}

const KINDS = ['unix', 'unix', 'tcp', 'pipe', 'pty', 'attach'] as const

export class Rig {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'vmc-kill-'))
  readonly guest: Guest = new Guest()
  readonly driver: Driver = new Driver(this.guest)
  readonly ports: Map<number, ModelPort> = new Map()
  readonly maps: Set<MapName> = new Set()
  readonly random: Random
  device!: StartedDevice
  attached = false
  log = ''
  /** Counters of each port at the last check. */
  counters: Map<number, PortStats['counters']> = new Map()
  /** Tcp port and name of the pty, as they were at the start. */
  readonly places: Map<number, string | null> = new Map()
  /** Peers whose connection was lost with the process that had just accepted it. */
  lostPeers = 0
  /** Processes that have died so far. */
  deaths = 0
  devicePid = 0
  /** Lines of the log that are no failure. */
  expected: RegExp | undefined
  /** Set while a step runs in which a process may die. */
  mayDie: () => boolean = () => false

  static async start(seed: number, intx: boolean): Promise<Rig> {
    const rig = new Rig(seed)
    rig.guest.eventIdx = rig.random.chance(50)
    rig.guest.intx = intx
    const at = (name: string): string => join(rig.folder, name)
    execFileSync('mkfifo', [at('fifo.in'), at('fifo.out')])
    const chardevs = [
      `unix:${at('p0.sock')},console=on`,
      `unix:${at('p1.sock')}`,
      'tcp:127.0.0.1:0',
      `pipe:${at('fifo')}`,
      `pty:${at('tty')}`,
      'attach',
    ]
    const names = KINDS.map((kind, id) => `org.${kind}.${id}`)
    process.env['VMCHANNEL_KEEPER_TEST'] = '1'
    rig.device = await startDevice(
      {
        stateDir: at('state'),
        vms: [
          {
            name: 'vm',
            maxPorts: 7,
            queueSize: QUEUE_SIZE,
            vectors: VECTORS,
            ports: chardevs.map((chardev, id) => `${chardev},name=${names[id]},nr=${id}`),
          },
        ],
        exitWith: 'never',
        logLevel: 'info',
      },
      // It ends with this program, however that ends, and does not end with its keeper.
      { keeper: true, stderr: 'pipe', detached: true, lifeline: rig.#lifeline.read },
    )
    rig.device.stderr?.setEncoding('utf8').on('data', (text: string) => (rig.log += text))
    for (const [id, kind] of KINDS.entries())
      rig.ports.set(id, {
        ...{ id, kind, name: names[id]!, console: id === 0, lossy: kind === 'pipe' || kind === 'pty' },
        ...{ peer: undefined, connected: kind === 'pipe' },
        get openForGuest() {
          return this.console || this.connected
        },
      })
    rig.ports.get(3)!.peer = new FilePeer(at('fifo.out'), at('fifo.in'))
    await rig.control(async (client) => {
      rig.devicePid = client.hello.devicePid!
      for (const { port, place } of await client.request('port.list', {})) rig.places.set(port, place)
      for (const { port, counters } of await client.request('port.stats', {})) rig.counters.set(port, counters)
    })
    return rig
  }

  readonly #lifeline: { read: number; write: number } = makePipe()

  private constructor(seed: number) {
    this.random = new Random(seed)
  }

  get vfioSocket(): string {
    return this.device.vms[0]!.socket
  }

  port(id: number): ModelPort {
    return this.ports.get(id)!
  }

  path(id: number): string {
    return join(this.folder, `p${id}.sock`)
  }

  /** Asks the device process; again where it dies meanwhile, so that `work` may be done twice. */
  async control<T>(work: (client: ControlClient) => Promise<T>): Promise<T> {
    const deadline = performance.now() + WAIT_MS
    for (;;) {
      let client: ControlClient | undefined
      try {
        client = await ControlClient.connect(this.device.controlSocket, { timeout: WAIT_MS })
        return await work(client)
      } catch (error) {
        const { code } = error as { code?: string }
        if (code !== 'ERR_VMCHANNEL_CLOSED' || performance.now() > deadline) throw error
        await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      } finally {
        client?.close()
      }
    }
  }

  /** Waits for what the guest or a peer has to see. */
  async until(condition: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + WAIT_MS
    while (!condition()) {
      this.driver.flush()
      const wrong = this.guest.fault ?? this.driver.wrong[0]
      if (wrong !== undefined) throw new Error(`${what}: ${wrong}`)
      if (performance.now() > deadline) throw new Error(`did not happen: ${what}; ${this.driver.describe()}`)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  /**
   * A program comes to a port. Its connection may have been accepted by a process that is killed before it can hand it
   * on: then it is hung up on, and comes again.
   */
  async connectPeer(id: number): Promise<void> {
    const port = this.port(id)
    for (;;) {
      const peer = await this.#openPeer(port)
      if (port.console) await this.#seen(id, peer)
      else await this.until(() => peer.gone || this.driver.ports.get(id)!.hostOpen, `port ${id}: its peer is announced`)
      if (!peer.gone) {
        port.peer = peer
        port.connected = true
        return
      }
      // Who killed the process says so a moment later.
      await new Promise((resolve) => setTimeout(resolve, 50))
      if (!this.mayDie()) throw new Error(`port ${id}: its peer was hung up on`)
      this.lostPeers++
    }
  }

  /**
   * A console is always open for the guest, or its writers would wait: only the device can say that somebody is there.
   */
  async #seen(id: number, peer: Peer): Promise<void> {
    for (const deadline = performance.now() + WAIT_MS; !peer.gone;) {
      const ports = await this.control((client) => client.request('port.list', {}))
      if (ports.find(({ port }) => port === id)?.hostConnected) return
      if (performance.now() > deadline) throw new Error(`port ${id}: nobody sees its peer`)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  async #openPeer({ id, kind }: ModelPort): Promise<Peer> {
    if (kind === 'unix') return SocketPeer.connect(this.path(id))
    if (kind === 'pty') return new FilePeer(this.places.get(id)!)
    if (kind === 'tcp') {
      const port = Number(/:(\d+)$/.exec(this.places.get(id)!)![1])
      return SocketPeer.connect({ port, host: '127.0.0.1' })
    }
    if (kind === 'pipe') throw new Error('a fifo is there all the time')
    for (;;)
      try {
        return new SocketPeer((await attachPort(this.device.controlSocket, { port: id }, { timeout: WAIT_MS })).socket)
      } catch (error) {
        const { code } = error as { code?: string }
        const again = code === 'ERR_VMCHANNEL_CLOSED' || (code === 'ERR_VMCHANNEL_IN_USE' && this.mayDie())
        if (!again) throw error
        await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      }
  }

  async disconnectPeer(id: number): Promise<void> {
    const port = this.port(id)
    port.peer!.close()
    port.peer = undefined
    port.connected = false
    const known = this.driver.ports.get(id)
    if (this.attached && known && !port.console)
      await this.until(() => !known.hostOpen, `port ${id}: the guest hears that its peer left`)
  }

  /** Processes that the keeper has started and that wait for work. */
  spares(): number[] {
    const { pid } = this.device
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
    return children.filter((child) => child !== this.devicePid && child > 0)
  }

  async close(): Promise<void> {
    this.guest.close()
    for (const { peer } of this.ports.values()) peer?.close()
    const { process: keeper } = this.device
    for (const pid of [this.device.pid, this.devicePid])
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // ESRCH
      }
    if (keeper.exitCode === null && keeper.signalCode === null) await once(keeper, 'exit')
    this.device.stderr?.destroy()
    for (const fd of Object.values(this.#lifeline)) closeFd(fd)
    rmSync(this.folder, { recursive: true, force: true })
  }
}
