/**
 * The console device (§5.3): features, configuration, the control state machine and the table of ports.
 *
 * Data queues go straight from `notify` to their port; only the control queues are handled here. A broken queue stops
 * alone and raises DEVICE_NEEDS_RESET; the other ports go on.
 */

import type { OpenChardev } from '../chardev/chardev.ts'
import { VmchannelError } from '../errors.ts'
import { SILENT, type Log } from '../log.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'
import { Batch } from '../ring/batch.ts'
import { DeviceQueue } from '../ring/device-queue.ts'
import type { RingAddresses } from '../ring/split-ring.ts'
import {
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  portOfQueue,
  queuesFor,
  receiveqOf,
  transmitqOf,
} from '../spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_CONSOLE_F_SIZE } from '../spec/features.ts'
import { VIRTIO_ID_CONSOLE } from '../spec/pci.ts'
import { ConsoleConfig, emergency } from './console-config.ts'
import { accepts, consoleFeatures, queueFeatures } from './console-features.ts'
import {
  checkConsoleOptions,
  checkNumber,
  queueSizeOf,
  schedulerOf,
  SETTLE_MS_DEFAULT,
  type ConsoleOptions,
} from './console-options.ts'
import { ControlSender } from './control.ts'
import type { DeviceHost, ResumedState, VirtioDevice } from './device.ts'
import { DeviceLog } from './device-log.ts'
import { DeviceNotes } from './device-notes.ts'
import { isFirmware } from './firmware.ts'
import { ControlReceiver, type ControlReceiverOwner } from './control-receiver.ts'
import { PortTable } from './port-table.ts'
import { DeviceQueues } from './queues.ts'
import { Port } from './port.ts'
import type { PortEventName, PortOwner, PortSettings } from './port-settings.ts'
import { DeviceWork, EVENT_COST, QUANTUM } from './work.ts'

export class ConsoleDevice implements VirtioDevice, PortOwner, ControlReceiverOwner {
  readonly id: number = VIRTIO_ID_CONSOLE
  readonly features: bigint
  readonly maxPorts: number
  readonly queueCount: number
  readonly batch: Batch = new Batch()
  readonly settleMs: number
  readonly soon: PortOwner['soon']
  readonly work: DeviceWork
  readonly config: ConsoleConfig
  readonly #options: ConsoleOptions
  readonly #log: Log
  readonly #deviceLog: DeviceLog
  readonly #queues: DeviceQueues
  readonly #notes: DeviceNotes
  readonly #ports: PortTable
  readonly #control: ControlSender
  readonly #controlReceiver: ControlReceiver
  #host: DeviceHost | undefined
  #refusal: string | undefined
  #accepted = 0n
  #started = false

  constructor(options: ConsoleOptions = {}) {
    const maxPorts = checkConsoleOptions(options)
    this.#options = options
    this.#log = options.log ?? SILENT
    this.#deviceLog = new DeviceLog(this.#log)
    this.maxPorts = maxPorts
    this.settleMs = options.settleMs ?? SETTLE_MS_DEFAULT
    this.soon = options.soon
    const multiport = maxPorts > 1
    this.queueCount = multiport ? queuesFor(maxPorts) : 2
    this.#notes = new DeviceNotes(options.ledger, maxPorts, this.queueCount)
    const serve = (queue: number): void => this.#serve(queue)
    this.work = new DeviceWork(schedulerOf(options), queuesFor(maxPorts) + 1, serve)
    const after = (ms: number, fn: () => void): (() => void) => this.after(ms, fn)
    this.#queues = new DeviceQueues(this.queueCount, this.#notes.queues, this.work, serve, after)
    this.features = consoleFeatures(multiport, options.iommuPlatform ?? false)
    this.config = new ConsoleConfig(maxPorts, this.#notes.ledger, (byte) => emergency(this.ports, byte, this.#log))
    this.#ports = new PortTable(maxPorts)
    // Without MULTIPORT there are no control queues (§5.3.2): these two then are never enabled.
    const receiveq = this.#queues.get(CONTROL_RECEIVEQ) ?? new DeviceQueue(CONTROL_RECEIVEQ)
    const transmitq = this.#queues.get(CONTROL_TRANSMITQ) ?? new DeviceQueue(CONTROL_TRANSMITQ)
    const told = this.#notes.control
    const order = options.resizeOrder ?? 'cols-rows'
    this.#control = new ControlSender(receiveq, this.batch, told, order, this.work, after)
    this.#controlReceiver = new ControlReceiver(transmitq, this.#ports, this.#control, told, this, this.#log)
  }

  // --- for the host

  get ports(): Port[] {
    return this.#ports.list()
  }
  port(id: number): Port | undefined {
    return this.#ports.get(id)
  }

  /** Whether a driver runs the device (DRIVER_OK). */
  get started(): boolean {
    return this.#started
  }

  /** Rules of the ring that the driver broke. */
  get faults(): number {
    return this.#deviceLog.faults
  }

  /** Control messages of the guest that were ignored. */
  get ignoredControl(): number {
    return this.#controlReceiver.ignored
  }

  /**
   * Adds a port and tells the guest; see PortTable.reserve for its number. The guest sees nothing of it before the
   * chardev is open. Rejects with what `open` rejects with, or with VmchannelError for a number or name that cannot be.
   * `resumed`: another process had this port, and `resume` follows.
   */
  async addPort(
    settings: Omit<PortSettings, 'id'> & { id?: number | undefined },
    open: OpenChardev,
    resumed = false,
  ): Promise<Port> {
    const id = this.#ports.reserve(settings)
    try {
      const [transmitq, receiveq] = [this.#queues.get(transmitqOf(id))!, this.#queues.get(receiveqOf(id))!]
      const port = new Port({ ...settings, id }, transmitq, receiveq, this, this.#notes.port(id, resumed))
      const chardev = await open(port)
      const { name } = settings
      this.#ports.set(id, port)
      this.#control.add(id, settings.console, name === undefined ? undefined : new TextEncoder().encode(name))
      port.setChardev(chardev)
      if (this.#started && !this.#multiport) this.#openSinglePort()
      this.event(port, 'port-added')
      this.pumpControl()
      return port
    } finally {
      this.#ports.release(id)
    }
  }

  /** Removes a port: what is left in it is dealt with, then the guest is told. */
  removePort(id: number): void {
    const port = this.#ports.find(id)
    this.#control.setOpen(id, false)
    port.remove(QUANTUM)
    this.#ports.drop(port)
    this.#control.remove(id)
    this.event(port, 'port-removed')
    this.pumpControl()
  }

  /** Tells the guest the size of a console port, in characters. Port 0's also stands in the configuration. */
  resizePort(id: number, cols: number, rows: number): void {
    const port = this.#ports.find(id)
    if (!port.settings.console)
      throw new VmchannelError('ERR_VMCHANNEL_PORT', `port ${id} is not a console: only consoles have a size`)
    checkNumber('cols', cols, 1, 0xffff)
    checkNumber('rows', rows, 1, 0xffff)
    this.#control.setSize(id, cols, rows)
    if (id === 0 && this.config.setSize(cols, rows) && this.#started) this.#host?.configChanged()
    this.pumpControl()
  }

  /** Makes the device refuse every driver (FEATURES_OK) with this reason in the log; undefined takes that back. */
  refuse(reason: string | undefined): void {
    this.#refusal = reason
  }

  /** Ends all ports, without a word to the guest. */
  close(): void {
    for (const port of this.#ports.takeAll()) port.remove(this.work.quantum)
  }

  // --- VirtioDevice

  connect(host: DeviceHost | undefined): void {
    this.#host = host
  }
  queueSizeMax(queue: number): number {
    return queue < this.queueCount ? queueSizeOf(this.#options, queue) : 0
  }
  readConfig(offset: number, out: Uint8Array): void {
    this.config.read(offset, out)
  }
  writeConfig(offset: number, data: Uint8Array): void {
    this.config.write(offset, data)
  }

  acceptFeatures(features: bigint): boolean {
    if (!accepts(this.features, features, this.#refusal, this.#log)) return false
    this.#accepted = features
    return true
  }

  enableQueue(queue: number, memory: GuestMemory, size: number, at: RingAddresses): boolean {
    try {
      this.#queues.enable(queue, memory, size, at, queueFeatures(this.#accepted))
    } catch (error) {
      this.#reportFault(queue, error)
      return false
    }
    this.#serve(queue)
    return true
  }

  resetQueue(queue: number): void {
    this.#queues.disable(queue)
  }
  resume(memory: GuestMemory, state: ResumedState): void {
    this.#accepted = state.features
    this.#notes.resumeQueues(this.#queues, memory, state)
    if (!state.started) return
    this.#started = true
    this.#control.resume(() => this.pumpControl())
    this.#notes.replay(this.#queues, this.#ports, this.batch)
    this.#controlReceiver.resume()
    this.#queues.serveAll(true)
  }

  start(): void {
    this.#started = true
    this.#control.reset((this.#accepted & VIRTIO_CONSOLE_F_SIZE) !== 0n)
    this.#control.save()
    this.#notes.firmware = isFirmware(this.#accepted, this.#queues.enabled)
    this.#options.onDriver?.(true)
    if (!this.#multiport) this.#openSinglePort()
    this.#queues.serveAll()
  }

  reset(): void {
    const was = this.#started
    this.#started = false
    if (was) this.#ports.drain(this.work)
    this.#accepted = 0n
    this.#queues.disableAll()
    this.#control.reset(false)
    this.#control.save()
    this.#deviceLog.forget()
    this.#ports.guestReset()
    if (was) this.#options.onDriver?.(false)
  }

  notify(queue: number): void {
    if (!this.#started || queue >= this.queueCount) return
    const id = portOfQueue(queue)
    const port = id === undefined ? undefined : this.#ports.get(id)
    if (port) port.counters.notifications++
    this.#serve(queue)
  }

  memoryChanged(): void {
    this.#queues.memoryChanged()
  }

  setBusMaster(on: boolean): void {
    this.#queues.setBusMaster(on)
  }

  get #multiport(): boolean {
    return (this.#accepted & VIRTIO_CONSOLE_F_MULTIPORT) !== 0n
  }

  /** Does what there is to do for a queue: the control queues here, the others in their port. */
  #serve(queue: number): void {
    if (!this.#started || this.#queues.look(queue)) return
    const id = portOfQueue(queue)
    if (id === undefined) {
      if (queue === CONTROL_TRANSMITQ) this.#controlReceiver.run()
      else this.pumpControl()
      return
    }
    if (queue & 1) this.#ports.writer(id)?.transmit()
    else this.#ports.get(id)?.receive()
  }

  /** Without MULTIPORT there is one port, open as soon as the driver runs (§5.3.5). */
  #openSinglePort(): void {
    const port = this.#ports.get(0)
    port?.setGuestReady(true)
    port?.setGuestOpen(true)
  }

  // --- PortOwner, ControlReceiverOwner

  interrupt(queue: DeviceQueue): void {
    if (this.#started) this.#host?.interruptQueue(queue.index)
  }

  fault(queue: DeviceQueue, error: unknown): void {
    queue.break()
    this.#reportFault(queue.index, error)
  }

  pumpControl(): void {
    const queue = this.#queues.get(CONTROL_RECEIVEQ)
    if (!this.#started || !this.#multiport || !queue) return this.#control.save()
    try {
      if (!this.work.isDeferred(CONTROL_RECEIVEQ)) this.#control.pump(() => this.pumpControl())
      // Before any system call: what is staged is published by a successor, and must not be said twice.
      this.#control.save()
      if (queue.flush()) this.interrupt(queue)
    } catch (error) {
      this.#control.save()
      this.fault(queue, error)
    }
  }

  portReady(port: Port): void {
    this.event(port, 'port-ready')
  }

  hostOpen(port: Port, open: boolean): void {
    this.#control.setOpen(port.id, open)
    this.pumpControl()
  }

  resized(port: Port, cols: number, rows: number): void {
    if (port.settings.console && this.#ports.get(port.id) === port) this.resizePort(port.id, cols, rows)
  }

  warn({ settings }: Port, message: string): void {
    this.work.charge(EVENT_COST, 0)
    this.#deviceLog.warn(settings, message)
  }

  after(ms: number, fn: () => void): () => void {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  }

  event(port: Port, event: PortEventName): void {
    this.work.charge(EVENT_COST, 0)
    this.#options.onEvent?.({ event, port })
  }

  #reportFault(queue: number, error: unknown): void {
    this.#deviceLog.fault(queue, error)
    this.#host?.needsReset()
  }
}
