/**
 * Our driver half on a device in a QEMU without a guest: QEMU's own device in its three shapes, and ours in a process of
 * its own (an access waits for its answer, so nobody in this process may be the one who gives it).
 */
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { BareMachine } from '../../../lab/bare-machine.ts'
import { ControlClient } from '../../../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../../../src/client/start.ts'
import type { DriverOptions } from '../../../src/driver/console-options.ts'
import { ConsoleDriver } from '../../../src/driver/console.ts'
import type { QtestDriver } from '../../../src/driver/attach/qtest/machine.ts'
import type { DriverPort } from '../../../src/driver/port.ts'
import { until } from '../../machine/rig.ts'
import { MemoryChardev } from '../../support/memory-chardev.ts'

export const DEVICES = ['ours', 'qemu', 'qemu-transitional', 'qemu-non-transitional'] as const
export type Device = (typeof DEVICES)[number]

const QEMU_DEVICE: Readonly<Record<string, string>> = {
  qemu: 'virtio-serial-pci,disable-legacy=on',
  'qemu-transitional': 'virtio-serial-pci,disable-legacy=off,disable-modern=off',
  'qemu-non-transitional': 'virtio-serial-pci-non-transitional',
}
const SLOT = 4

export interface QtestRigOptions {
  driver?: DriverOptions
  vectors?: number
  maxPorts?: number
  /** Names of the ports there are from the start. */
  ports?: string[]
}

export class QtestRig {
  readonly device: Device
  readonly machine: BareMachine
  readonly log: string[] = []
  /** "added 1", in order. */
  readonly events: string[] = []
  attached!: QtestDriver
  driver!: ConsoleDriver
  readonly #options: QtestRigOptions
  readonly #process: StartedDevice | undefined
  #control: ControlClient | undefined
  readonly #sockets: Socket[] = []

  static async start(device: Device, options: QtestRigOptions = {}): Promise<QtestRig> {
    const { maxPorts = 8, ports = [] } = options
    if (device !== 'ours') {
      const args = ['-device', `${QEMU_DEVICE[device]},id=vs,max_ports=${maxPorts},addr=${SLOT}`]
      return new QtestRig(device, await BareMachine.start({ args }), options, undefined).#begin(ports)
    }
    const started = await startDevice(
      { vms: [{ maxPorts, ports: [] }], exitWith: 'parent', logLevel: 'warn' },
      { stderr: 'pipe' },
    )
    const { qemuArgs } = started.vms[0]!
    const args = qemuArgs.map((word) =>
      word.replace('"driver":"vfio-user-pci"', `"driver":"vfio-user-pci","addr":"0${SLOT}.0"`),
    )
    const machine = await BareMachine.start({ args }).catch((error: unknown) => {
      started.stdin.end()
      throw error
    })
    const rig = new QtestRig(device, machine, options, started)
    started.stderr!.setEncoding('utf8').on('data', (text) => rig.log.push(String(text)))
    rig.#control = await ControlClient.connect(started.controlSocket)
    return rig.#begin(ports)
  }

  private constructor(
    device: Device,
    machine: BareMachine,
    options: QtestRigOptions,
    started: StartedDevice | undefined,
  ) {
    this.device = device
    this.machine = machine
    this.#options = options
    this.#process = started
  }

  async #begin(ports: readonly string[]): Promise<this> {
    for (const name of ports) await this.addPort(name)
    this.attach(this.#options)
    this.driver.start()
    for (const name of ports) await this.port(name)
    return this
  }

  /** A new driver on the device; the old one must have let go of it. */
  attach({ vectors, driver }: Pick<QtestRigOptions, 'vectors' | 'driver'> = {}): void {
    const note = (level: string) => (message: string) => void this.log.push(`${level}: ${message}`)
    const log = { error: note('error'), warn: note('warn'), info: note('info'), debug: () => {} }
    this.attached = this.machine.qtest.attach({ slot: SLOT }, vectors === undefined ? {} : { vectors })
    this.driver = new ConsoleDriver(this.attached.transport, this.attached.pool, {
      log,
      defer: setImmediate,
      onPort: ({ event, port }) => void this.events.push(`${event} ${port.id}`),
      ...driver,
    })
  }

  /** Ends the driver, device reset, and starts another one. */
  again(options: Pick<QtestRigOptions, 'vectors' | 'driver'> = {}): void {
    this.driver.stop()
    this.attached.detach()
    this.attach(options)
    this.driver.start()
  }

  async addPort(name: string, { console = false, id }: { console?: boolean; id?: number } = {}): Promise<void> {
    const path = this.socket(name)
    if (this.#control) {
      const spec = `unix:${path},server=on,name=${name}${console ? ',console=on' : ''}${id === undefined ? '' : `,nr=${id}`}`
      await this.#control.request('port.add', { spec })
      return
    }
    const backend = { type: 'socket', data: { addr: { type: 'unix', data: { path } }, server: true, wait: false } }
    await this.machine.qmp('chardev-add', { id: `c-${name}`, backend })
    const driver = console ? 'virtconsole' : 'virtserialport'
    const nr = id === undefined ? {} : { nr: id }
    await this.machine.qmp('device_add', { driver, id: name, bus: 'vs.0', chardev: `c-${name}`, name, ...nr })
  }

  async removePort(name: string): Promise<void> {
    if (this.#control) await this.#control.request('port.remove', { port: name })
    else {
      await this.machine.qmp('device_del', { id: name })
      // QEMU lets go of it a moment later.
      const remove = () => this.machine.qmp('chardev-remove', { id: `c-${name}` })
      await until(() => remove().then(Boolean, () => false), 'the chardev can be removed')
    }
  }

  /** Until the host's side knows that the guest has the port open, or not. */
  async guestOpen(name: string, open: boolean): Promise<void> {
    const ours = async (): Promise<boolean> => {
      const ports = await this.#control!.request('port.list', {})
      return ports.find((port) => port.name === name)!.guestOpen
    }
    // Events of QEMU are held back by a clock that stands still here; the chardev's state is not.
    const qemus = async (): Promise<boolean> => {
      const chardevs = (await this.machine.qmp('query-chardev')) as { label: string; 'frontend-open': boolean }[]
      return chardevs.find(({ label }) => label === `c-${name}`)!['frontend-open']
    }
    const ask = this.#control ? ours : qemus
    await until(async () => (await ask()) === open, `the host sees ${name} ${open ? 'open' : 'closed'}`)
  }

  resize(name: string, cols: number, rows: number): Promise<unknown> {
    return this.#control!.request('port.resize', { port: name, cols, rows })
  }

  /** The driver's port of that name, once it is there. */
  async port(name: string): Promise<DriverPort> {
    const find = (): DriverPort | undefined => this.driver.ports.find((port) => port.name === name)
    await until(() => find() !== undefined, `the driver has port ${name}; the log is ${this.log.join('; ')}`)
    return find()!
  }

  /** Opens a port in place of a program in the guest. */
  async open(name: string): Promise<MemoryChardev> {
    const port = await this.port(name)
    return port.attach((end) => new MemoryChardev(end)) as MemoryChardev
  }

  socket(name: string): string {
    return join(this.machine.folder, `${name}.sock`)
  }

  /** A host peer of a port, and both sides know it. */
  async connect(name: string): Promise<Socket> {
    const socket = connect({ path: this.socket(name), allowHalfOpen: true })
    this.#sockets.push(socket)
    socket.on('error', () => {})
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    const port = await this.port(name)
    await until(() => port.hostOpen, `the driver hears of the peer of ${name}`)
    return socket
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#control?.close()
    await this.machine.close()
    if (!this.#process) return
    const { process: child, stdin } = this.#process
    const ended = new Promise((resolve) => child.once('exit', resolve))
    stdin.end()
    if (child.exitCode === null) await ended
  }
}
