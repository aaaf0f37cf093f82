/**
 * The console device (§5.3): features, configuration, the control state machine and the table of ports.
 *
 * Data queues go straight from `notify` to their port; only the control queues are handled here. A broken queue stops
 * alone and raises DEVICE_NEEDS_RESET; the other ports go on.
 */

import type { OpenChardev } from '../chardev/chardev.ts'
import { PeerFault, VmchannelError } from '../errors.ts'
import { printable, SILENT, type Log } from '../log.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'
import { Batch, DeviceQueue } from '../ring/device-queue.ts'
import type { RingAddresses } from '../ring/split-ring.ts'
import {
  CONSOLE_CONTROL_SIZEOF,
  CONSOLE_PORTS_DEFAULT,
  CONSOLE_PORTS_MAX,
  CONTROL_EVENT_NAMES,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  decodeControl,
  portOfQueue,
  queuesFor,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  type ControlMessage,
  type ResizeOrder,
} from '../spec/console.ts'
import {
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../spec/features.ts'
import { VIRTIO_ID_CONSOLE } from '../spec/pci.ts'
import { ConsoleConfig } from './console-config.ts'
import { ControlSender } from './control.ts'
import type { DeviceHost, VirtioDevice } from './device.ts'
import { Port, type PortOwner, type PortSettings } from './port.ts'

export interface ConsoleOptions {
  /** Ports 0 … maxPorts - 1; 1 means no MULTIPORT: one console, no names. Default 31. */
  maxPorts?: number
  /** Entries of each data queue, and of the two control queues: powers of two. Default 128 and 64. */
  queueSize?: number
  controlQueueSize?: number
  resizeOrder?: ResizeOrder
  log?: Log
  /** Runs a function after other events had their turn. Default: setTimeout 0; Node programs pass setImmediate. */
  defer?: (fn: () => void) => void
  onEvent?: (event: PortEvent) => void
}

export interface PortEvent {
  event: 'guest-open' | 'guest-close' | 'host-connect' | 'host-disconnect' | 'port-ready' | 'port-added' | 'port-removed'
  port: Port
}

/** Control messages of the guest handled before other events have their turn. */
const CONTROL_TURN = 256

export class ConsoleDevice implements VirtioDevice, PortOwner {
  readonly id: number = VIRTIO_ID_CONSOLE
  readonly features: bigint
  readonly maxPorts: number
  readonly queueCount: number
  readonly batch: Batch = new Batch()
  readonly config: ConsoleConfig
  /** Control messages of the guest that were ignored: too short, unknown, about no port. */
  ignoredControl = 0
  faults = 0
  #refusal: string | undefined
  readonly #queues: DeviceQueue[] = []
  readonly #ports: (Port | undefined)[]
  readonly #reserved = new Map<number, string | undefined>()
  readonly #control: ControlSender
  readonly #log: Log
  readonly #options: ConsoleOptions
  readonly #defer: (fn: () => void) => void
  #host: DeviceHost | undefined
  #accepted = 0n
  #started = false
  #controlDeferred = false
  #busMaster = true

  constructor(options: ConsoleOptions = {}) {
    const maxPorts = options.maxPorts ?? CONSOLE_PORTS_DEFAULT
    if (!Number.isInteger(maxPorts) || maxPorts < 1 || maxPorts > CONSOLE_PORTS_MAX)
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `max-ports: ${maxPorts} is not a number from 1 to ${CONSOLE_PORTS_MAX}`)
    for (const [name, size] of Object.entries({ 'queue-size': options.queueSize, 'control-queue-size': options.controlQueueSize }))
      if (size !== undefined && (!Number.isInteger(size) || size < 2 || size > 1024 || (size & (size - 1)) !== 0))
        throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${name}: ${size} is not a power of two from 2 to 1024`)
    this.#options = options
    this.#log = options.log ?? SILENT
    this.#defer = options.defer ?? ((fn) => void setTimeout(fn, 0))
    this.maxPorts = maxPorts
    const multiport = maxPorts > 1
    this.queueCount = multiport ? queuesFor(maxPorts) : 2
    for (let i = 0; i < this.queueCount; i++) this.#queues.push(new DeviceQueue(i))
    this.#ports = Array.from({ length: maxPorts })
    this.features =
      VIRTIO_CONSOLE_F_SIZE |
      VIRTIO_CONSOLE_F_EMERG_WRITE |
      (multiport ? VIRTIO_CONSOLE_F_MULTIPORT : 0n) |
      VIRTIO_RING_F_INDIRECT_DESC |
      VIRTIO_RING_F_EVENT_IDX |
      VIRTIO_F_VERSION_1 |
      VIRTIO_F_RING_RESET
    this.config = new ConsoleConfig(maxPorts, (byte) => this.#emergency(byte))
    const control = this.#queues[CONTROL_RECEIVEQ] ?? new DeviceQueue(CONTROL_RECEIVEQ)
    this.#control = new ControlSender(control, this.batch, options.resizeOrder ?? 'cols-rows')
  }

  // --- ports, for the host

  get ports(): Port[] {
    return this.#ports.filter((port) => port !== undefined)
  }

  port(id: number): Port | undefined {
    return this.#ports[id]
  }

  /** Whether a driver runs the device (DRIVER_OK). */
  get started(): boolean {
    return this.#started
  }

  /**
   * Adds a port and tells the guest. Without an id it gets the lowest free one: consoles from 0, others from 1 (port 0
   * is the console of drivers without MULTIPORT). The guest sees nothing of it before the chardev is open.
   */
  async addPort(settings: Omit<PortSettings, 'id'> & { id?: number | undefined }, open: OpenChardev): Promise<Port> {
    const id = this.#pickId(settings)
    this.#reserved.set(id, settings.name)
    try {
      const port = new Port({ ...settings, id }, this.#queues[transmitqOf(id)]!, this.#queues[receiveqOf(id)]!, this)
      const chardev = await open(port)
      this.#ports[id] = port
      this.#control.add(id, settings.console, settings.name === undefined ? undefined : new TextEncoder().encode(settings.name))
      port.setChardev(chardev)
      if (this.#started && !this.#multiport && id === 0) this.#openSinglePort()
      this.#emit('port-added', port)
      this.#pumpControl()
      return port
    } finally {
      this.#reserved.delete(id)
    }
  }

  /** Removes a port: what is left in it is dealt with, then the guest is told. */
  removePort(id: number): void {
    const port = this.#ports[id]
    if (!port) throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `port ${id}: there is no such port`)
    this.#control.setOpen(id, false)
    port.remove()
    this.#ports[id] = undefined
    this.#control.remove(id)
    this.#emit('port-removed', port)
    this.#pumpControl()
  }

  /** Tells the guest the size of a console port, in characters. Port 0's also stands in the configuration. */
  resizePort(id: number, cols: number, rows: number): void {
    const port = this.#ports[id]
    if (!port) throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `port ${id}: there is no such port`)
    if (!port.settings.console)
      throw new VmchannelError('ERR_VMCHANNEL_PORT', `port ${id} is not a console: only consoles have a size`)
    for (const [name, n] of Object.entries({ cols, rows }))
      if (!Number.isInteger(n) || n < 1 || n > 0xffff)
        throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${name}: ${n} is not a number from 1 to 65535`)
    this.#control.setSize(id, cols, rows)
    if (id === 0 && this.config.setSize(cols, rows) && this.#started) this.#host?.configChanged()
    this.#pumpControl()
  }

  /** Makes the device refuse every driver (FEATURES_OK) with this reason in the log; undefined takes that back. */
  refuse(reason: string | undefined): void {
    this.#refusal = reason
  }

  close(): void {
    for (const port of this.ports) port.remove()
    this.#ports.fill(undefined)
  }

  #pickId(settings: { id?: number | undefined; name: string | undefined; console: boolean }): number {
    const taken = (id: number): boolean => this.#ports[id] !== undefined || this.#reserved.has(id)
    if (settings.name !== undefined) {
      const names = [...this.ports.map((port) => port.settings.name), ...this.#reserved.values()]
      if (names.includes(settings.name))
        throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `port name "${settings.name}" is already in use on this device`, {
          hint: 'Give each port a name of its own.',
        })
    }
    if (settings.id === undefined) {
      for (let id = settings.console || this.maxPorts === 1 ? 0 : 1; id < this.maxPorts; id++) if (!taken(id)) return id
      throw new VmchannelError('ERR_VMCHANNEL_PORT', `no free port: all ${this.maxPorts} of this device are in use`, {
        hint: 'Remove a port, or start the device with a larger max-ports.',
      })
    }
    const { id } = settings
    if (!Number.isInteger(id) || id < 0 || id >= this.maxPorts)
      throw new VmchannelError('ERR_VMCHANNEL_PORT', `port number ${id} is out of range: this device has 0 to ${this.maxPorts - 1}`)
    if (id === 0 && !settings.console)
      throw new VmchannelError('ERR_VMCHANNEL_PORT', 'port number 0 is kept for a console', {
        hint: 'Leave the number out, or use 1 and above for ports that are not consoles.',
      })
    if (taken(id)) throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `port number ${id} is already in use`)
    return id
  }

  // --- VirtioDevice

  connect(host: DeviceHost | undefined): void {
    this.#host = host
  }

  queueSizeMax(queue: number): number {
    if (queue >= this.queueCount) return 0
    const control = this.maxPorts > 1 && (queue === CONTROL_RECEIVEQ || queue === CONTROL_TRANSMITQ)
    return control ? (this.#options.controlQueueSize ?? 64) : (this.#options.queueSize ?? 128)
  }

  readConfig(offset: number, out: Uint8Array): void {
    this.config.read(offset, out)
  }

  writeConfig(offset: number, data: Uint8Array): void {
    this.config.write(offset, data)
  }

  acceptFeatures(features: bigint): boolean {
    if ((features & ~this.features) !== 0n || !(features & VIRTIO_F_VERSION_1)) return false
    if (this.#refusal !== undefined) {
      this.#log.error(`the guest's driver was refused: ${this.#refusal}`)
      return false
    }
    this.#accepted = features
    return true
  }

  enableQueue(queue: number, memory: GuestMemory, size: number, at: RingAddresses): boolean {
    try {
      this.#queues[queue]!.enable(memory, size, at, {
        eventIdx: (this.#accepted & VIRTIO_RING_F_EVENT_IDX) !== 0n,
        indirect: (this.#accepted & VIRTIO_RING_F_INDIRECT_DESC) !== 0n,
      })
      if (!this.#busMaster) this.#queues[queue]!.unbind()
      else if (this.#started) this.#serve(queue)
      return true
    } catch (error) {
      this.#reportFault(queue, error)
      return false
    }
  }

  resetQueue(queue: number): void {
    this.#queues[queue]!.disable()
  }

  start(): void {
    this.#started = true
    this.#control.reset((this.#accepted & VIRTIO_CONSOLE_F_SIZE) !== 0n)
    for (const port of this.ports) {
      this.#control.setOpen(port.id, port.openForGuest)
      if (this.config.cols > 0 && port.id === 0) this.#control.setSize(0, this.config.cols, this.config.rows)
    }
    if (!this.#multiport) this.#openSinglePort()
    for (let queue = 0; queue < this.queueCount; queue++) if (this.#queues[queue]!.enabled) this.#serve(queue)
  }

  reset(): void {
    this.#started = false
    this.#accepted = 0n
    for (const queue of this.#queues) queue.disable()
    this.#control.reset(false)
    for (const port of this.ports) port.guestReset()
  }

  notify(queue: number): void {
    if (!this.#started || queue >= this.queueCount) return
    const id = portOfQueue(queue)
    const port = id === undefined ? undefined : this.#ports[id]
    if (port) port.counters.notifications++
    this.#serve(queue)
  }

  setBusMaster(on: boolean): void {
    if (on === this.#busMaster) return
    this.#busMaster = on
    if (on) this.memoryChanged()
    else for (const queue of this.#queues) queue.unbind()
  }

  /** The memory map has changed: rings are looked up again, and those that came back are served. */
  memoryChanged(): void {
    if (!this.#busMaster) return
    for (let queue = 0; queue < this.queueCount; queue++)
      if (this.#queues[queue]!.rebind() && this.#started) this.#serve(queue)
  }

  get #multiport(): boolean {
    return (this.#accepted & VIRTIO_CONSOLE_F_MULTIPORT) !== 0n
  }

  #serve(queue: number): void {
    if (queue === CONTROL_TRANSMITQ && this.maxPorts > 1) return this.#receiveControl()
    if (queue === CONTROL_RECEIVEQ && this.maxPorts > 1) return this.#pumpControl()
    const port = this.#ports[portOfQueue(queue)!]
    if (!port) return
    if (queue & 1) port.transmit()
    else port.receive()
  }

  /** Without MULTIPORT there is one port, open as soon as the driver runs (§5.3.5). */
  #openSinglePort(): void {
    const port = this.#ports[0]
    port?.setGuestReady(true)
    port?.setGuestOpen(true)
  }

  // --- control messages

  #receiveControl(): void {
    const queue = this.#queues[CONTROL_TRANSMITQ]!
    const bytes = new Uint8Array(CONSOLE_CONTROL_SIZEOF)
    try {
      let turn = CONTROL_TURN
      do {
        queue.disableNotify()
        for (;;) {
          const total = queue.gather(this.batch, 'readable', 1, 1)
          if (this.batch.count === 0) break
          const len = this.batch.list.copyTo(bytes)
          queue.complete(this.batch, total)
          // Linux spins until the buffer is back: at once, before anything is done about it.
          if (queue.flush()) this.interrupt(queue)
          const message = decodeControl(bytes.subarray(0, len))
          if (message) this.#handleControl(message)
          else this.ignoredControl++
          if (--turn === 0) return this.#deferControl()
        }
      } while (queue.enableNotify())
    } catch (error) {
      this.fault(queue, error)
    }
  }

  #deferControl(): void {
    if (this.#controlDeferred) return
    this.#controlDeferred = true
    this.#defer(() => {
      this.#controlDeferred = false
      if (this.#started) this.#receiveControl()
    })
  }

  #handleControl({ id, event, value }: ControlMessage): void {
    this.#log.debug(`control: ${CONTROL_EVENT_NAMES[event] ?? `event ${event}`} port ${id} value ${value}`)
    if (event === VIRTIO_CONSOLE_DEVICE_READY) {
      if (value === 1) this.#control.deviceReady()
      else this.#log.warn('the guest driver could not set up the device (DEVICE_READY 0)')
      return this.#pumpControl()
    }
    const port = id < this.maxPorts ? this.#ports[id] : undefined
    if (!port) {
      // After hibernation Linux remembers ports; one that is gone meanwhile is taken back.
      if (event === VIRTIO_CONSOLE_PORT_READY && value === 1 && id < this.maxPorts && !this.#control.driverReady)
        this.#control.farewell(id)
      else this.ignoredControl++
      return this.#pumpControl()
    }
    if (event === VIRTIO_CONSOLE_PORT_READY) {
      port.setGuestReady(value === 1)
      if (value === 1) this.#control.portReady(id)
      else this.#log.warn(`port ${id}: the guest driver could not set it up (PORT_READY 0)`)
      if (value === 1) this.#emit('port-ready', port)
    } else if (event === VIRTIO_CONSOLE_PORT_OPEN && port.guestReady) port.setGuestOpen(value !== 0)
    else this.ignoredControl++
    this.#pumpControl()
  }

  #pumpControl(): void {
    const queue = this.#queues[CONTROL_RECEIVEQ]
    if (!this.#started || !this.#multiport || !queue) return
    try {
      this.#control.pump()
      if (queue.flush()) this.interrupt(queue)
    } catch (error) {
      this.fault(queue, error)
    }
  }

  // --- PortOwner

  interrupt(queue: DeviceQueue): void {
    if (this.#started) this.#host?.interruptQueue(queue.index)
  }

  fault(queue: DeviceQueue, error: unknown): void {
    queue.break()
    this.#reportFault(queue.index, error)
  }

  hostOpen(port: Port, open: boolean): void {
    this.#control.setOpen(port.id, open)
    this.#pumpControl()
  }

  resized(port: Port, cols: number, rows: number): void {
    if (port.settings.console && this.#ports[port.id] === port) this.resizePort(port.id, cols, rows)
  }

  warn(port: Port, message: string): void {
    this.#log.warn(`port ${port.id}${port.settings.name === undefined ? '' : ` (${printable(port.settings.name)})`}: ${message}`)
  }

  defer(fn: () => void): void {
    this.#defer(fn)
  }

  after(ms: number, fn: () => void): () => void {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  }

  event(port: Port, event: PortEvent['event']): void {
    this.#emit(event, port)
  }

  #emit(event: PortEvent['event'], port: Port): void {
    this.#options.onEvent?.({ event, port })
  }

  #reportFault(queue: number, error: unknown): void {
    this.faults++
    if (!(error instanceof PeerFault)) throw error
    this.#log.error(`queue ${queue} is broken, the guest has to reset the device: ${error.message}`)
    this.#host?.needsReset()
  }

  /** §5.3.5: to the first console, else to the first port, else line by line into the log. */
  #emergency(byte: number): void {
    const port = this.ports.find((p) => p.settings.console) ?? this.ports[0]
    if (port) port.emergency(Uint8Array.of(byte))
    else this.#log.warn(`emergency console: ${printable(String.fromCharCode(byte))}`)
  }
}
