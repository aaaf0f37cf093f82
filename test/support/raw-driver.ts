/**
 * A driver without manners: real registers of our device, rings written by hand. Tests make it behave like Linux, or
 * like nothing that ever ran.
 */

import { LoopbackMachine } from '../../src/device/attach/loopback.ts'
import type { ConsoleOptions } from '../../src/device/console-options.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci, type VirtioPciOptions } from '../../src/device/pci/virtio-pci.ts'
import type { PortSettings } from '../../src/device/port-settings.ts'
import type { Port } from '../../src/device/port.ts'
import { PciRegisters } from '../../src/driver/pci-registers.ts'
import { findMsix, setMsix } from '../../src/driver/capabilities.ts'
import { PciTransport } from '../../src/driver/pci.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import {
  CONSOLE_BAD_ID,
  CONTROL_EVENT_NAMES,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  decodeControl,
  encodeControl,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../../src/spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_CONSOLE_F_SIZE, VIRTIO_F_VERSION_1 } from '../../src/spec/features.ts'
import { PORT_DEFAULTS } from './pair.ts'
import { MemoryChardev } from './memory-chardev.ts'
import { PAGE_LEN, RawQueue, RING_LEN } from './raw-queue.ts'

export const BASIC: bigint = VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_CONSOLE_F_SIZE | VIRTIO_F_VERSION_1

export interface RawOptions {
  device?: ConsoleOptions
  pci?: VirtioPciOptions
  /** The test does a lot without a pause: the device takes that for many turns of the event loop, not for one. */
  tireless?: boolean
  /** MSI-X vectors; 0: INTx. Default all. */
  vectors?: number
}

export class RawDriver {
  readonly device: ConsoleDevice
  readonly pci: VirtioPci
  readonly memory: GuestMemory = new GuestMemory()
  readonly machine: LoopbackMachine
  readonly registers: PciRegisters
  readonly transport: PciTransport
  readonly log: string[] = []
  /** Queues that have had an interrupt since it was last emptied. */
  readonly interrupts: number[] = []
  configInterrupts = 0
  #queues = new Map<number, RawQueue>()

  constructor(options: RawOptions = {}) {
    const note = (level: string) => (message: string) => void this.log.push(`${level}: ${message}`)
    const log = { error: note('error'), warn: note('warn'), info: note('info'), debug: () => {} }
    const defer = options.tireless ? (fn: () => void) => fn() : setImmediate
    this.device = new ConsoleDevice({ maxPorts: 4, settleMs: 0, log, defer, ...options.device })
    this.pci = new VirtioPci(this.device, this.memory, { vectors: this.device.queueCount + 1, ...options.pci })
    // Interrupts arrive at once: this driver has no handler that could be re-entered.
    this.machine = new LoopbackMachine(this.pci, this.memory, { schedule: (deliver) => deliver() })
    this.registers = new PciRegisters(this.pci)
    const msix = findMsix(this.registers)!
    const vectors = options.vectors ?? msix.vectors
    setMsix(this.registers, msix, vectors > 0)
    this.transport = new PciTransport(this.pci, { vectors })
    this.machine.connectCpu(this.transport)
  }

  async host(
    settings: Partial<Omit<PortSettings, 'id'>> & { id?: number } = {},
    connected = true,
  ): Promise<{ port: Port; chardev: MemoryChardev }> {
    let chardev: MemoryChardev | undefined
    const port = await this.device.addPort({ ...PORT_DEFAULTS, ...settings }, async (end) => {
      chardev = new MemoryChardev(end, connected)
      return chardev
    })
    return { port, chardev: chardev! }
  }

  /** Reset, features, all queues, DRIVER_OK. */
  start(features: bigint = BASIC, queues: number = this.device.queueCount): this {
    this.negotiate(features)
    for (let i = 0; i < queues; i++) this.enable(i)
    this.transport.writeStatus(15)
    return this
  }

  negotiate(features: bigint): void {
    this.reset()
    this.transport.writeStatus(3)
    this.transport.writeDriverFeatures(features)
    this.transport.writeStatus(11)
    this.transport.connect({
      queues: (queues) => void this.interrupts.push(...queues),
      config: () => void this.configInterrupts++,
    })
  }

  reset(): void {
    this.transport.writeStatus(0)
    this.#queues.clear()
  }

  enable(index: number, size: number = this.transport.queueSizeMax(index)): RawQueue {
    const ring = this.machine.allocate(RING_LEN)
    const pages = this.machine.allocate(size * PAGE_LEN)
    const queue = new RawQueue(index, size, ring, pages, (queue) => this.transport.notify(queue))
    this.#queues.set(index, queue)
    this.transport.enableQueue(index, size, queue.at, true)
    return queue
  }

  queue(index: number): RawQueue {
    return this.#queues.get(index)!
  }

  get status(): number {
    return this.transport.readStatus()
  }
  get needsReset(): boolean {
    return (this.status & 0x40) !== 0
  }

  // --- the control queues, as Linux uses them

  /** Posts page-sized buffers for control messages, and says DEVICE_READY. */
  ready(buffers = 16): this {
    for (let i = 0; i < buffers; i++) this.queue(CONTROL_RECEIVEQ).postPage(i)
    this.queue(CONTROL_RECEIVEQ).notify()
    this.control(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
    return this
  }

  /** One message by way of the control transmitq; Linux then spins until it is used. */
  control(id: number, event: number, value: number): void {
    this.send(CONTROL_TRANSMITQ, encodeControl(id, event, value))
  }

  /** Answers DEVICE_ADD and opens the port. */
  open(id: number): this {
    this.control(id, VIRTIO_CONSOLE_PORT_READY, 1)
    this.control(id, VIRTIO_CONSOLE_PORT_OPEN, 1)
    return this
  }

  /** What the device has said since the last call: "PORT_NAME 1 1 org.test.0"; the buffers go back to it. */
  messages(): string[] {
    const queue = this.queue(CONTROL_RECEIVEQ)
    return queue.takeUsed().map(({ id, len }) => {
      const bytes = queue.page(id).slice(0, len)
      queue.postPage(id)
      const message = decodeControl(bytes)
      if (!message) return `short ${len}`
      const tail = Buffer.from(bytes.subarray(8)).toString('latin1')
      return `${CONTROL_EVENT_NAMES[message.event]} ${message.id} ${message.value}${tail ? ` ${tail}` : ''}`
    })
  }

  /** One readable buffer with these bytes; notifies. The buffer is page 0 of the queue, the head is 0. */
  send(queue: number, bytes: Uint8Array): void {
    const raw = this.queue(queue)
    raw.page(0).set(bytes)
    raw.desc(0, raw.pageAddress(0), bytes.length, 0)
    raw.avail(0)
    raw.notify()
  }
}
