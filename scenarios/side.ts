/** One device of the machine in the words of the scenarios: ports that come for a scenario and go after it. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Job } from '../lab/agent.ts'
import type { ConsoleHost, PortWish } from '../lab/console-host.ts'
import type { Machine } from '../lab/machine.ts'
import { Pattern, patternSha256 } from '../lab/pattern.ts'
import { portNode } from '../lab/ports.ts'
import {
  startVmtest,
  vmtest,
  type PollEvent,
  type VmtestJob,
  type VmtestName,
  type VmtestResults,
} from '../lab/vmtest.ts'
import { readBytes, until } from '../lab/wait.ts'
import type { DeviceName } from './scenario.ts'

export const MIB: number = 1 << 20
/** For what a loaded machine does in a moment. */
const WAIT_MS = 60_000
/** For bytes in bulk. */
const BULK_MS = 240_000

type Waiting = Parameters<typeof startVmtest>[1]

export class Side {
  readonly device: DeviceName
  readonly machine: Machine
  readonly host: ConsoleHost
  /** Its place on the guest's bus. */
  readonly bdf: string
  readonly #ports = new Set<string>()
  readonly #jobs: Job[] = []
  #peers: Socket[] = []
  #count = 0

  constructor(device: DeviceName, machine: Machine, host: ConsoleHost, bdf: string) {
    this.device = device
    this.machine = machine
    this.host = host
    this.bdf = bdf
  }

  /** Plugs a port; its name is new unless given. Resolves when the guest has it. */
  async plug(wish: PortWish & { name?: string } = {}): Promise<Port> {
    const { name = `${this.device}.${++this.#count}`, ...rest } = wish
    await this.host.addPort(name, rest)
    this.#ports.add(name)
    return new Port(this, name, await portNode(this.machine, name, WAIT_MS))
  }

  async unplug({ name, node }: Port): Promise<void> {
    this.#ports.delete(name)
    await this.host.removePort(name)
    await until(async () => (await this.machine.run(`test -e ${node}`)).status !== 0, `${node} goes`, WAIT_MS)
  }

  /** The same port after its driver has come anew. */
  async again({ name }: Port): Promise<Port> {
    return new Port(this, name, await portNode(this.machine, name, WAIT_MS))
  }

  async peer(name: string): Promise<Socket> {
    const socket = await this.host.connect(name)
    this.#peers.push(socket)
    return socket
  }

  /** A command in the guest that ends with the scenario at the latest. */
  spawn(command: string): Job {
    const job = this.machine.spawn(command)
    this.#jobs.push(job)
    return job
  }

  own(job: Job): void {
    this.#jobs.push(job)
  }

  /** Commands, peers and ports of the scenario that has ended. */
  async tidy(): Promise<void> {
    for (const job of this.#jobs.splice(0)) job.kill(9)
    for (const peer of this.#peers) peer.destroy()
    this.#peers = []
    for (const name of this.#ports) await this.host.removePort(name)
    this.#ports.clear()
    const left = async (): Promise<boolean> =>
      (await this.machine.run(`grep -q '^${this.device}\\.' /sys/class/virtio-ports/*/name 2>/dev/null`)).status !== 0
    await until(left, 'the ports have gone from the guest', WAIT_MS)
  }
}

export class Port {
  readonly name: string
  /** The guest's character device. */
  readonly node: string
  readonly #side: Side

  constructor(side: Side, name: string, node: string) {
    this.#side = side
    this.name = name
    this.node = node
  }

  /** A host peer; the guest knows of it. */
  async connect(): Promise<Socket> {
    const peer = await this.#side.peer(this.name)
    // Somebody who has the port open cannot be asked past.
    if (!(await this.guestOpen())) await this.untilPoll((events) => !events.includes('HUP'), 'the host is there')
    return peer
  }

  guestOpen(): Promise<boolean> {
    return this.#side.host.guestOpen(this.name)
  }

  async untilGuestOpen(open: boolean): Promise<void> {
    const what = `the host knows that the guest has ${open ? 'opened' : 'closed'} ${this.name}`
    await until(async () => (await this.guestOpen()) === open, what, WAIT_MS)
  }

  async poll(): Promise<PollEvent[]> {
    return (await this.test('poll', 0)).revents
  }

  async untilPoll(wanted: (events: PollEvent[]) => boolean, what: string): Promise<void> {
    let events: PollEvent[] = []
    const seen = async (): Promise<boolean> => wanted((events = await this.poll()))
    await until(seen, `${what}, as poll says in the guest`, WAIT_MS).catch((error: Error) => {
      throw new Error(`${error.message}: ${events.join()}`)
    })
  }

  /** `vmtest NAME NODE WORDS…` to its end. */
  test<Name extends VmtestName>(name: Name, ...words: (string | number)[]): Promise<VmtestResults[Name]> {
    return vmtest(this.#side.machine, name, [this.node, ...words], BULK_MS)
  }

  /** The same for what waits: it is armed now. */
  async start<Name extends Waiting>(name: Name, ...words: (string | number)[]): Promise<VmtestJob<Name>> {
    const started = await startVmtest(this.#side.machine, name, [this.node, ...words])
    this.#side.own(started.job)
    return started
  }

  /** Guest to host, compared. */
  async send(peer: Socket, total: number, size: number): Promise<void> {
    const got = readBytes(peer, total, BULK_MS)
    got.catch(() => {})
    const { sha256 } = await this.test('source', total, size)
    const arrived = createHash('sha256')
      .update(await got)
      .digest('hex')
    if (arrived !== sha256) throw new Error(`${total} bytes guest to host are other bytes`)
  }

  /** Host to guest, compared. */
  async receive(peer: Socket, total: number, size: number): Promise<void> {
    const sink = await this.start('sink', total)
    await write(peer, total, size)
    this.same(await sink.result(BULK_MS), total)
  }

  same({ bytes, sha256 }: VmtestResults['sink'], total: number): void {
    if (bytes !== total) throw new Error(`${bytes} of ${total} bytes host to guest`)
    if (sha256 !== patternSha256(total)) throw new Error(`${total} bytes host to guest are other bytes`)
  }

  /** A little each way. */
  async talk(): Promise<void> {
    const peer = await this.connect()
    await this.send(peer, 20_000, 1000)
    await this.receive(peer, 20_000, 1000)
    await bye(peer)
  }
}

/** The pattern, no faster than the peer takes it. */
export async function write(peer: Socket, total: number, size: number): Promise<void> {
  const pattern = new Pattern()
  for (let left = total; left > 0; left -= size)
    if (!peer.write(pattern.take(Math.min(left, size))))
      await new Promise<void>((resolve, reject) => {
        const gone = (): void => reject(new Error(`the peer has ended, ${left} bytes left`))
        peer.once('close', gone).once('drain', () => (peer.off('close', gone), resolve()))
      })
}

export function bye(peer: Socket): Promise<void> {
  return new Promise((resolve) => (peer.destroyed ? resolve() : peer.once('close', () => resolve()).destroy()))
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
