/**
 * Our driver half on a device in a QEMU without a guest: QEMU's own device in its three shapes, and ours in a process
 * of its own (an access waits for its answer, so nobody in this process may be the one who gives it).
 */
import type { Socket } from 'node:net'
import { BareMachine } from '../../../lab/bare-machine.ts'
import { ConsoleHost, type PortWish } from '../../../lab/console-host.ts'
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
  /** The process of our device may be killed, by `host.kill`. */
  keeper?: boolean
}

/** Of our device: more than one for all queues. */
const VECTORS = 4

export class QtestRig {
  readonly device: Device
  readonly machine: BareMachine
  readonly #notes: string[] = []
  /** "added 1", in order. */
  readonly events: string[] = []
  attached!: QtestDriver
  driver!: ConsoleDriver
  readonly #options: QtestRigOptions
  readonly host: ConsoleHost

  static async start(device: Device, options: QtestRigOptions = {}): Promise<QtestRig> {
    const { maxPorts = 8, ports = [], keeper = false } = options
    const kind = device === 'ours' ? 'ours' : 'qemu'
    const host = await ConsoleHost.start({
      device: kind,
      slot: SLOT,
      qemuDevice: QEMU_DEVICE[device]!,
      maxPorts,
      keeper,
      vm: { vectors: VECTORS },
    })
    const machine = await BareMachine.start({ args: host.args }).catch(async (error: unknown) => {
      await host.close()
      throw error
    })
    host.attach((name, args) => machine.qmp(name, args))
    return new QtestRig(device, machine, options, host).#begin(ports)
  }

  private constructor(device: Device, machine: BareMachine, options: QtestRigOptions, host: ConsoleHost) {
    this.device = device
    this.machine = machine
    this.#options = options
    this.host = host
  }

  /** Complaints of the driver, and of our device. */
  get log(): string[] {
    return [...this.#notes, ...this.host.log]
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
    const note = (level: string) => (message: string) => void this.#notes.push(`${level}: ${message}`)
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

  addPort(name: string, wish?: PortWish): Promise<void> {
    return this.host.addPort(name, wish)
  }

  removePort(name: string): Promise<void> {
    return this.host.removePort(name)
  }

  /** Until the host's side knows that the guest has the port open, or not. */
  guestOpen(name: string, open: boolean): Promise<void> {
    const said = async (): Promise<boolean> => (await this.host.guestOpen(name)) === open
    return until(said, `the host sees ${name} ${open ? 'open' : 'closed'}`)
  }

  resize(name: string, cols: number, rows: number): Promise<unknown> {
    return this.host.resize(name, cols, rows)
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

  /** A host peer of a port, and both sides know it. */
  async connect(name: string): Promise<Socket> {
    const socket = await this.host.connect(name)
    const port = await this.port(name)
    await until(() => port.hostOpen, `the driver hears of the peer of ${name}`)
    return socket
  }

  async close(): Promise<void> {
    await this.machine.close()
    await this.host.close()
  }
}
