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
import { CONSOLE_CONFIG_COLS, CONTROL_RECEIVEQ, CONTROL_TRANSMITQ, decodeSize, portOfQueue } from '../spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_CONSOLE_F_SIZE } from '../spec/features.ts'
import { VIRTIO_ID_CONSOLE } from '../spec/pci.ts'
import { VIRTIO_CONFIG_S_NEEDS_RESET } from '../spec/status.ts'
import { checkDriverOptions, type DriverOptions, type DriverSettings } from './console-options.ts'
import type { ControlActions } from './control-receiver.ts'
import { DriverPort } from './port.ts'
import type { DriverPortEventName, PortOwner, QueueOwner } from './port-settings.ts'
import { DriverQueues } from './queues.ts'
import { PAIR_COST, Turn, TurnSteps, type Waiting } from './turn.ts'
import { failDevice, resetDevice, startDevice, type InterruptHandler, type Transport } from './transport.ts'

export class ConsoleDriver implements InterruptHandler, QueueOwner, PortOwner, ControlActions {
  readonly list: Iovec = new Iovec()
  readonly turn: Turn
  /** Rules that the device broke. */
  faults = 0
  readonly #transport: Transport
  readonly #pool: DmaPool
  readonly #settings: DriverSettings
  readonly #log: Log
  readonly #control: Waiting = { waits: false, run: () => this.#running && this.#serveControl() }
  #accepted = 0n
  #running = false
  #needsReset = false
  /** From set-up until the device has been reset: it may write to their memory all that time. */
  #queues: DriverQueues | undefined
  #starting: TurnSteps | undefined
  #ports: (DriverPort | undefined)[] = []

  constructor(transport: Transport, pool: DmaPool, options: DriverOptions = {}) {
    if (transport.deviceId !== VIRTIO_ID_CONSOLE)
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `virtio device ${transport.deviceId} is not a console (3)`)
    this.#transport = transport
    this.#pool = pool
    this.#settings = checkDriverOptions(options)
    this.#log = options.log ?? SILENT
    this.turn = new Turn(this.#settings.defer)
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
    return this.#queues?.ports ?? 0
  }
  get multiport(): boolean {
    return (this.#accepted & VIRTIO_CONSOLE_F_MULTIPORT) !== 0n
  }
  /** Control messages of the device that were ignored. */
  get ignoredControl(): number {
    return this.#queues?.control?.receiver.ignored ?? 0
  }

  /** Takes the device into use. Throws VmchannelError or PeerFault; then the device is marked FAILED. */
  start(): void {
    this.#checkStopped()
    for (const steps = this.#start(() => {}); !steps.next().done;);
  }

  /**
   * The same in several turns of the event loop, where there are many ports and others that want to go on. `running` is
   * called when the device runs, before it is heard. Resolves then, or when `stop` came before; rejects as `start`
   * throws.
   */
  startInTurns(running: () => void = () => {}): Promise<void> {
    this.#checkStopped()
    this.#starting = new TurnSteps(this.turn, this.#start(running), PAIR_COST)
    return this.#starting.done
  }

  #checkStopped(): void {
    if (this.#running) throw new VmchannelError('ERR_VMCHANNEL_IN_USE', 'the driver runs already')
    this.stop()
  }

  *#start(running: () => void): Generator<undefined, void> {
    this.#needsReset = false
    const { features } = this.#settings
    try {
      yield* startDevice(this.#transport, {
        choose: (offered) => offered & features,
        setUp: (accepted) => {
          this.#accepted = accepted
          this.#transport.connect(this)
          this.#queues = new DriverQueues(this.#transport, this.#pool, accepted, this.#settings, this)
          return this.#queues.setUp(this.#log)
        },
      })
    } catch (error) {
      this.#transport.connect(undefined)
      this.#release()
      throw error
    }
    this.#starting = undefined
    this.#running = true
    running()
    const control = this.#queues?.control
    if (!control) {
      // Without MULTIPORT there is one port, a console that is open at once (§5.3.5).
      this.add(0)
      const port = this.#ports[0]!
      port.setConsole()
      port.setHostOpen(true)
      return this.#readSize()
    }
    // Only now: before DRIVER_OK nothing may be notified (§3.1.1).
    if (control.receiver.fill(this.#pool)) this.#transport.notify(CONTROL_RECEIVEQ)
    control.sender.deviceReady()
    this.#pump()
  }

  /** Ends all ports and resets the device. Also after it has failed: until then it may write to our memory. */
  stop(): void {
    this.#starting?.abandon()
    if (this.#running) this.#end()
    else if (!this.#queues) return
    else this.#transport.connect(undefined)
    resetDevice(this.#transport)
    this.#release()
  }

  /** What only a reset mends (§2.1.2): from the start, with new ports. */
  restart(): void {
    this.stop()
    this.start()
  }

  /** All ports end; the device still runs. */
  #end(): void {
    this.#running = false
    this.#transport.connect(undefined)
    for (const port of this.ports) port.end('stopped')
    this.#ports = []
  }

  #release(): void {
    this.#starting = undefined
    this.turn.clear()
    this.#queues?.release()
    this.#queues = undefined
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
      // However often it says so: once is enough until it has been reset.
      if (this.#needsReset) return
      this.#needsReset = true
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
      if (this.turn.over) this.turn.wait(this.#control)
      else if (this.#queues?.control?.receiver.run(this.turn)) this.#transport.notify(CONTROL_RECEIVEQ)
    } catch (error) {
      return this.#failed(error)
    }
    this.#pump()
  }

  #pump(): void {
    try {
      if (!this.turn.over && this.#queues?.control?.sender.pump(this.turn)) this.#transport.notify(CONTROL_TRANSMITQ)
    } catch (error) {
      return this.#failed(error)
    }
    // It may have been over in the middle: then what is left has no interrupt to come.
    if (this.turn.over && this.#queues?.control) this.turn.wait(this.#control)
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
    const pair = this.#queues?.pair(id)
    // A broken queue stays broken until the device is reset.
    if (!pair || pair.receiver.queue.broken || pair.transmitter.queue.broken) return false
    // A device that adds a port anew has forgotten all about it: it is told again (§5.3.6.2).
    this.#queues?.control?.sender.portReady(id)
    if (this.#ports[id]) return true
    const port = new DriverPort(id, pair.transmitter, pair.receiver, this.#settings.receiveBuffers, this)
    this.#ports[id] = port
    this.event(port, 'added')
    return true
  }

  remove(port: DriverPort): void {
    this.#ports[port.id] = undefined
    this.#queues?.control?.sender.forget(port.id)
    port.end('removed')
  }

  becomeConsole(port: DriverPort): void {
    port.setConsole()
    // §5.3.6.2.2: a console is open from then on.
    this.#queues?.control?.sender.setOpen(port.id, true)
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
    this.#queues?.control?.sender.setOpen(id, false)
    this.#ports[id]?.end('broken')
    this.#pump()
  }

  guestOpen(port: DriverPort, open: boolean): void {
    if (this.#ports[port.id] !== port) return
    this.#queues?.control?.sender.setOpen(port.id, open || port.console)
    this.#pump()
  }

  event(port: DriverPort, event: DriverPortEventName): void {
    this.#settings.onPort?.({ event, port })
  }

  warn(port: DriverPort, message: string): void {
    this.#log.warn(`port ${port.id}: ${message}`)
  }
}
