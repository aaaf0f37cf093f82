/**
 * The console driver (§5.3): starts the device, answers its control messages, keeps the table of ports. The mirror of
 * device/console.ts, and as wary: the device may lie. A data queue that breaks a rule ends its port, a control queue
 * ends them all and tells the device that its driver has failed.
 */

import { describeError, PeerFault, VmchannelError } from '../errors.ts'
import { SILENT, type Log } from '../log.ts'
import type { DmaPool } from '../mem/dma-pool.ts'
import { Iovec } from '../mem/iovec.ts'
import type { DriverQueue } from '../ring/driver-queue.ts'
import {
  CONSOLE_CONFIG_COLS,
  CONSOLE_CONFIG_MAX_NR_PORTS,
  CONSOLE_PORTS_MAX,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  decodeSize,
  portOfQueue,
  receiveqOf,
  transmitqOf,
} from '../spec/console.ts'
import {
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../spec/features.ts'
import { VIRTIO_ID_CONSOLE } from '../spec/pci.ts'
import { VIRTIO_CONFIG_S_NEEDS_RESET } from '../spec/status.ts'
import { checkDriverOptions, type DriverOptions, type DriverSettings } from './console-options.ts'
import { ControlReceiver, type ControlActions } from './control-receiver.ts'
import { ControlSender } from './control.ts'
import { makeRing, type DriverRing } from './driver-rings.ts'
import { DriverPort } from './port.ts'
import { newDriverCounters, type DriverPortEventName, type PortOwner, type QueueOwner } from './port-settings.ts'
import { Receiver } from './receive.ts'
import { failDevice, resetDevice, startDevice, type InterruptHandler, type Transport } from './transport.ts'
import { Transmitter, TRANSMIT_CHAIN_MAX } from './transmit.ts'

/** The two queues of a port number; they outlive the ports that have it. */
interface Pair {
  readonly receiver: Receiver
  readonly transmitter: Transmitter
}

export class ConsoleDriver implements InterruptHandler, QueueOwner, PortOwner, ControlActions {
  readonly list: Iovec = new Iovec()
  /** Rules that the device broke. */
  faults = 0
  readonly #transport: Transport
  readonly #pool: DmaPool
  readonly #settings: DriverSettings
  readonly #log: Log
  #accepted = 0n
  #running = false
  #rings: DriverRing[] = []
  #pairs: Pair[] = []
  #ports: (DriverPort | undefined)[] = []
  #control: { sender: ControlSender; receiver: ControlReceiver } | undefined

  constructor(transport: Transport, pool: DmaPool, options: DriverOptions = {}) {
    if (transport.deviceId !== VIRTIO_ID_CONSOLE)
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `virtio device ${transport.deviceId} is not a console (3)`)
    this.#transport = transport
    this.#pool = pool
    this.#settings = checkDriverOptions(options)
    this.#log = options.log ?? SILENT
  }

  get ports(): DriverPort[] {
    return this.#ports.filter((port) => port !== undefined)
  }
  port(id: number): DriverPort | undefined {
    return this.#ports[id]
  }
  /** Whether the device runs under this driver. */
  get running(): boolean {
    return this.#running
  }
  /** Ports that the device may add: 0 … maxPorts - 1. */
  get maxPorts(): number {
    return this.#pairs.length
  }
  get multiport(): boolean {
    return (this.#accepted & VIRTIO_CONSOLE_F_MULTIPORT) !== 0n
  }
  /** Control messages of the device that were ignored. */
  get ignoredControl(): number {
    return this.#control?.receiver.ignored ?? 0
  }

  /** Takes the device into use. Throws VmchannelError or PeerFault; then the device is marked FAILED. */
  start(): void {
    if (this.#running) throw new VmchannelError('ERR_VMCHANNEL_IN_USE', 'the driver runs already')
    this.stop()
    const { features } = this.#settings
    try {
      startDevice(this.#transport, {
        choose: (offered) => offered & features,
        setUp: (accepted) => this.#setUp(accepted),
      })
    } catch (error) {
      this.#transport.connect(undefined)
      this.#release()
      throw error
    }
    this.#running = true
    if (!this.#control) {
      // Without MULTIPORT there is one port, a console that is open at once (§5.3.5).
      this.add(0)
      const port = this.#ports[0]!
      port.setConsole()
      port.setHostOpen(true)
      return this.#readSize()
    }
    // Only now: before DRIVER_OK nothing may be notified (§3.1.1).
    if (this.#control.receiver.fill(this.#pool)) this.#transport.notify(CONTROL_RECEIVEQ)
    this.#control.sender.deviceReady()
    this.#pump()
  }

  /** Ends all ports and resets the device. Also after it has failed: until then it may write to our memory. */
  stop(): void {
    if (this.#running) this.#end()
    else if (this.#rings.length === 0) return
    resetDevice(this.#transport)
    this.#release()
  }

  /** What only a reset mends (§2.1.2): from the start, with new ports. */
  restart(): void {
    this.stop()
    this.start()
  }

  #setUp(accepted: bigint): void {
    this.#accepted = accepted
    this.#transport.connect(this)
    const multiport = this.multiport
    const queues = this.#transport.queueCount
    const ports = multiport ? this.#readMaxPorts(queues) : 1
    const bytes = { len: this.#settings.transmitLen, count: this.#settings.transmitBuffers }
    for (let id = 0; id < ports; id++) {
      const receiveq = this.#enable(receiveqOf(id), { indirect: 0, tolerant: false })
      const transmitq = this.#enable(transmitqOf(id), { indirect: TRANSMIT_CHAIN_MAX, tolerant: false })
      const nobody = newDriverCounters()
      this.#pairs.push({
        receiver: new Receiver(receiveq, this.#pool, this.#settings.receiveLen, nobody, this),
        transmitter: new Transmitter(transmitq, this.#pool, bytes, nobody, this),
      })
    }
    if (!multiport) return
    const receiver = this.#enable(CONTROL_RECEIVEQ, { indirect: 0, tolerant: false })
    const sender = this.#enable(CONTROL_TRANSMITQ, { indirect: 0, tolerant: true })
    this.#control = {
      sender: new ControlSender(sender, this.#pool),
      receiver: new ControlReceiver(receiver, this, this.#settings.resizeOrder, this.#log),
    }
  }

  /** As many ports as the device says, but no more than it has queues for. */
  #readMaxPorts(queues: number): number {
    const bytes = new Uint8Array(4)
    this.#transport.readConfig(CONSOLE_CONFIG_MAX_NR_PORTS, bytes)
    const said = new DataView(bytes.buffer).getUint32(0, true)
    const ports = Math.min(said, Math.floor(queues / 2) - 1, CONSOLE_PORTS_MAX)
    if (ports < 1) throw new PeerFault(`a multiport console with ${said} ports and ${queues} queues (§5.3.4)`)
    if (ports < said) this.#log.warn(`the device says ${said} ports, but has ${queues} queues: ${ports} are used`)
    return ports
  }

  #enable(index: number, { indirect, tolerant }: { indirect: number; tolerant: boolean }): DriverQueue {
    const size = this.#transport.queueSizeMax(index)
    if (size === 0) throw new PeerFault(`the device has no queue ${index} (§5.3.2)`)
    const ring = makeRing(this.#pool, index, size, {
      eventIdx: (this.#accepted & VIRTIO_RING_F_EVENT_IDX) !== 0n,
      indirect: this.#accepted & VIRTIO_RING_F_INDIRECT_DESC ? indirect : 0,
      tolerant,
    })
    this.#rings.push(ring)
    this.#transport.enableQueue(index, ring.queue.size, ring.at, true)
    return ring.queue
  }

  /** All ports end; the device still runs. */
  #end(): void {
    this.#running = false
    this.#transport.connect(undefined)
    for (const port of this.ports) port.end('stopped')
    this.#ports = []
  }

  /** Gives all memory back: only once the device has been reset, for until then it may write there. */
  #release(): void {
    for (const { receiver, transmitter } of this.#pairs) {
      receiver.release()
      transmitter.release()
    }
    this.#control?.sender.release(this.#pool)
    this.#control?.receiver.release(this.#pool)
    for (const ring of this.#rings) ring.release()
    this.#pairs = []
    this.#rings = []
    this.#control = undefined
  }

  // --- InterruptHandler

  queues(queues: readonly number[]): void {
    for (const queue of queues) {
      // A fault may have ended everything in the middle of the list.
      if (!this.#running) return
      const id = portOfQueue(queue)
      if (id === undefined) this.#serveControl()
      else if (queue & 1) this.#ports[id]?.transmit()
      else this.#ports[id]?.receive()
    }
  }

  config(): void {
    if (!this.#running) return
    if (this.#transport.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET) {
      this.#log.warn('the device needs a reset')
      this.#settings.onNeedsReset?.()
      return
    }
    if (!this.multiport) this.#readSize()
  }

  /** Without MULTIPORT the size stands in the configuration (§5.3.4). */
  #readSize(): void {
    if (!(this.#accepted & VIRTIO_CONSOLE_F_SIZE)) return
    const bytes = new Uint8Array(4)
    this.#transport.readConfig(CONSOLE_CONFIG_COLS, bytes)
    const { cols, rows } = decodeSize(bytes, 'cols-rows')!
    if (cols > 0 && rows > 0) this.#ports[0]?.setSize(cols, rows)
  }

  #serveControl(): void {
    try {
      if (this.#control?.receiver.run()) this.#transport.notify(CONTROL_RECEIVEQ)
    } catch (error) {
      return this.#failed(error)
    }
    this.#pump()
  }

  #pump(): void {
    try {
      if (this.#control?.sender.pump()) this.#transport.notify(CONTROL_TRANSMITQ)
    } catch (error) {
      this.#failed(error)
    }
  }

  /** The control queues are broken: nothing can be told or heard any more. */
  #failed(error: unknown): void {
    if (!(error instanceof PeerFault)) throw error
    this.faults++
    this.#log.error(`the device broke a control queue, its driver stops: ${describeError(error)}`)
    this.#end()
    failDevice(this.#transport)
    this.#settings.onFailed?.(error)
  }

  // --- ControlActions

  add(id: number): boolean {
    const pair = this.#pairs[id]
    // A broken queue stays broken until the device is reset.
    if (!pair || pair.receiver.queue.broken || pair.transmitter.queue.broken) return false
    // A device that adds a port anew has forgotten all about it: it is told again (§5.3.6.2).
    this.#control?.sender.portReady(id)
    if (this.#ports[id]) return true
    const port = new DriverPort(id, pair.transmitter, pair.receiver, this.#settings.receiveBuffers, this)
    this.#ports[id] = port
    this.event(port, 'added')
    return true
  }

  remove(port: DriverPort): void {
    this.#ports[port.id] = undefined
    this.#control?.sender.forget(port.id)
    port.end('removed')
  }

  becomeConsole(port: DriverPort): void {
    port.setConsole()
    // §5.3.6.2.2: a console is open from then on.
    this.#control?.sender.setOpen(port.id, true)
  }

  // --- QueueOwner, PortOwner

  notify(queue: DriverQueue): void {
    if (this.#running) this.#transport.notify(queue.index)
  }

  fault(queue: DriverQueue, error: unknown): void {
    if (!(error instanceof PeerFault)) throw error
    this.faults++
    const id = portOfQueue(queue.index)!
    this.#log.error(`port ${id}: the device broke its queue, the port is closed: ${error.message}`)
    this.#control?.sender.setOpen(id, false)
    this.#ports[id]?.end('broken')
    this.#pump()
  }

  defer(fn: () => void): void {
    this.#settings.defer(() => {
      if (this.#running) fn()
    })
  }

  guestOpen(port: DriverPort, open: boolean): void {
    if (this.#ports[port.id] !== port) return
    this.#control?.sender.setOpen(port.id, open || port.console)
    this.#pump()
  }

  event(port: DriverPort, event: DriverPortEventName): void {
    this.#settings.onPort?.({ event, port })
  }

  warn(port: DriverPort, message: string): void {
    this.#log.warn(`port ${port.id}: ${message}`)
  }
}
