/**
 * The host's side of a virtio-serial device in a QEMU, ours (in a process of its own) or QEMU's, handled in the same
 * words: its ports lead to unix sockets. Used by the matrix and by tests that drive both devices.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ControlClient } from '../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import type { PortStats, VmOptions } from '../src/daemon/protocol.ts'
import { until } from './wait.ts'

export type Qmp = (name: string, args?: Record<string, unknown>) => Promise<unknown>

export interface PortWish {
  console?: boolean
  id?: number
  /** Of our device: leads there instead of to a socket. */
  chardev?: string
}

export interface ConsoleHostOptions {
  device: 'ours' | 'qemu'
  /** On bus 0. */
  slot: number
  /** QEMU's driver and its properties; default virtio-serial-pci. */
  qemuDevice?: string
  /** QEMU's name of its own device; default vs. */
  id?: string
  /** Of our device. */
  vm?: Omit<VmOptions, 'name' | 'socket' | 'maxPorts'>
  maxPorts?: number
  /** Names of ports that are there from the start. */
  ports?: readonly string[]
  /** Our device's process may die: a keeper starts another. */
  keeper?: boolean
}

export class ConsoleHost {
  /** For QEMU's command line. */
  readonly args: readonly string[]
  /** What our device complained about. */
  readonly log: string[] = []
  readonly #folder: string
  readonly #id: string
  readonly #process: StartedDevice | undefined
  readonly #sockets: Socket[] = []
  #control: ControlClient | undefined
  #qmp: Qmp | undefined

  static async start(options: ConsoleHostOptions): Promise<ConsoleHost> {
    const { id = 'vs', maxPorts = 8, ports = [], slot } = options
    const folder = mkdtempSync(join(tmpdir(), 'vmchannel-host-'))
    const socket = (name: string): string => join(folder, `${name}.sock`)
    if (options.device === 'qemu') {
      const args = [
        '-device',
        `${options.qemuDevice ?? 'virtio-serial-pci'},id=${id},max_ports=${maxPorts},addr=0x${slot.toString(16)}`,
      ]
      for (const name of ports) {
        args.push('-chardev', `socket,id=c-${name},path=${socket(name)},server=on,wait=off`)
        args.push('-device', `virtserialport,bus=${id}.0,chardev=c-${name},name=${name},id=${name}`)
      }
      return new ConsoleHost(folder, id, args, undefined)
    }
    const specs = ports.map((name) => `unix:${socket(name)},server=on,name=${name}`)
    const started = await startDevice(
      { vms: [{ ...options.vm, maxPorts, ports: specs }], exitWith: 'parent', logLevel: 'warn' },
      { stderr: 'pipe', keeper: options.keeper ?? false },
    )
    const place = `"driver":"vfio-user-pci","addr":"${slot.toString(16)}.0"`
    const args = started.vms[0]!.qemuArgs.map((word) => word.replace('"driver":"vfio-user-pci"', place))
    const host = new ConsoleHost(folder, id, args, started)
    started.stderr!.setEncoding('utf8').on('data', (text) => void host.log.push(String(text)))
    try {
      host.#control = await ControlClient.connect(started.controlSocket)
      return host
    } catch (error) {
      await host.close()
      throw error
    }
  }

  private constructor(folder: string, id: string, args: readonly string[], started: StartedDevice | undefined) {
    this.#folder = folder
    this.#id = id
    this.args = args
    this.#process = started
  }

  /** QEMU runs now, and answers there. */
  attach(qmp: Qmp): void {
    this.#qmp = qmp
  }

  async addPort(name: string, { console = false, id, chardev: place }: PortWish = {}): Promise<void> {
    const path = this.socket(name)
    if (this.#control) {
      const spec = `${place ?? `unix:${path},server=on`},name=${name}${console ? ',console=on' : ''}${id === undefined ? '' : `,nr=${id}`}`
      await this.#control.request('port.add', { spec })
      return
    }
    const backend = { type: 'socket', data: { addr: { type: 'unix', data: { path } }, server: true, wait: false } }
    const chardev = `c-${key(name)}`
    await this.#qmp!('chardev-add', { id: chardev, backend })
    const driver = console ? 'virtconsole' : 'virtserialport'
    const nr = id === undefined ? {} : { nr: id }
    try {
      await this.#qmp!('device_add', { driver, id: key(name), bus: `${this.#id}.0`, chardev, name, ...nr })
    } catch (error) {
      await this.#qmp!('chardev-remove', { id: chardev })
      throw error
    }
  }

  async removePort(name: string): Promise<void> {
    if (this.#control) return void (await this.#control.request('port.remove', { port: name }))
    await this.#qmp!('device_del', { id: key(name) })
    // QEMU lets go of it a moment later.
    const remove = (): Promise<boolean> =>
      this.#qmp!('chardev-remove', { id: `c-${key(name)}` }).then(
        () => true,
        () => false,
      )
    await until(remove, 'the chardev can be removed')
  }

  /** Whether the host's side knows that the guest has the port open. */
  async guestOpen(name: string): Promise<boolean> {
    if (this.#control) {
      const ports = await this.#control.request('port.list', {})
      return ports.find((port) => port.name === name)?.guestOpen ?? false
    }
    // Events of QEMU are held back by a clock that stands still under qtest; the chardev's state is not.
    const chardevs = (await this.#qmp!('query-chardev')) as { label: string; 'frontend-open': boolean }[]
    return chardevs.find(({ label }) => label === `c-${key(name)}`)?.['frontend-open'] ?? false
  }

  resize(name: string, cols: number, rows: number): Promise<unknown> {
    return this.#control!.request('port.resize', { port: name, cols, rows })
  }

  /** Process id of our device; undefined where it is QEMU's. */
  get pid(): number | undefined {
    return this.#process?.pid
  }
  /** Whether our device's process has ended. */
  get ended(): boolean {
    return (
      this.#process !== undefined &&
      (this.#process.process.exitCode !== null || this.#process.process.signalCode !== null)
    )
  }

  /** Kills the process that runs our device, and waits for the one that takes its place. */
  async kill(): Promise<void> {
    const ask = async (): Promise<{ pid: number; restarts: number }> => {
      const client = await ControlClient.connect(this.#process!.controlSocket)
      client.close()
      return { pid: client.hello.devicePid!, restarts: client.hello.restarts! }
    }
    const { pid, restarts } = await ask()
    process.kill(pid, 'SIGKILL')
    const taken = (): Promise<boolean> =>
      ask().then(
        (now) => now.restarts > restarts,
        () => false,
      )
    await until(taken, 'another process has taken over')
  }

  /** What the ports have moved, asked anew: a connection of before ends with its process. */
  async stats(): Promise<PortStats[]> {
    const client = await ControlClient.connect(this.#process!.controlSocket)
    try {
      return await client.request('port.stats', {})
    } finally {
      client.close()
    }
  }

  socket(name: string): string {
    return join(this.#folder, `${key(name)}.sock`)
  }

  /** A peer of a port, connected. */
  async connect(name: string): Promise<Socket> {
    const socket = connect({ path: this.socket(name), allowHalfOpen: true })
    this.#sockets.push(socket)
    socket.on('error', () => {})
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return socket
  }

  /** Ends peers and our device process; QEMU should have ended before. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#control?.close()
    if (this.#process) {
      const { process: child, stdin } = this.#process
      const ended = new Promise((resolve) => child.once('exit', resolve))
      stdin.end()
      if (child.exitCode === null && child.signalCode === null) await ended
    }
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** A name may be anything; a path of a socket and an id of QEMU's may not. */
function key(name: string): string {
  const plain = name.replaceAll(/[^\w.-]/g, '_').slice(0, 40)
  return /^[A-Za-z]/.test(plain) ? plain : `p${plain}`
}
