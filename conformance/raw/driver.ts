/**
 * A driver that obeys no rule unless its user wants it to: negotiation, queues and control messages step by step. Nothing
 * here checks the device; cases do.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import {
  CONSOLE_BAD_ID,
  CONSOLE_CONFIG_MAX_NR_PORTS,
  CONTROL_EVENT_NAMES,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  decodeControl,
  encodeControl,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../../src/spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_CONSOLE_F_SIZE, VIRTIO_F_VERSION_1 } from '../../src/spec/features.ts'
import { VIRTIO_MSI_NO_VECTOR } from '../../src/spec/pci.ts'
import { PAGE_LEN, RawQueue, RING_LEN } from '../../test/support/raw-queue.ts'
import { Finding, NotApplicable } from '../case.ts'
import type { Interrupts, RawMachine } from './machine.ts'
import { RawRegisters } from './registers.ts'

export const ACKNOWLEDGE = 1
export const DRIVER = 2
export const DRIVER_OK = 4
export const FEATURES_OK = 8
const NEEDS_RESET = 0x40

/** Entries that this driver uses where the device allows more: enough for every case. */
const SIZE_MAX = 64
const RESET_READS = 1000

export interface StartOptions {
  /** Features to accept where they are offered. */
  features?: bigint
  /** Queues to enable; default all. */
  queues?: readonly number[]
  /** MSI-X vectors; default one for each queue where there are as many; 0: the pin. */
  vectors?: number
  /** Entries of each queue at most. */
  size?: number
}

export interface ControlNews {
  event: number
  id: number
  value: number
  tail: Buffer
  /** Bytes that the device said it wrote. */
  len: number
}

export interface PortInfo {
  readonly id: number
  name: string | undefined
  console: boolean
  open: boolean
}

export const BASIC: bigint = VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_CONSOLE_F_SIZE | VIRTIO_F_VERSION_1

export class RawDriver {
  readonly machine: RawMachine
  readonly registers: RawRegisters
  readonly offered: bigint
  accepted = 0n
  irq: Interrupts | undefined
  vectors = 0
  readonly #queues = new Map<number, RawQueue>()
  /** All that the device has said, in order; `ports` is what follows from it. */
  readonly heard: ControlNews[] = []
  readonly ports: Map<number, PortInfo> = new Map()

  constructor(machine: RawMachine) {
    this.machine = machine
    this.registers = new RawRegisters(machine.access)
    this.reset()
    this.offered = this.registers.features()
  }

  // --- status

  get status(): number {
    return this.registers.read('device_status')
  }
  set status(value: number) {
    this.registers.write('device_status', value)
  }

  reset(): void {
    this.status = 0
    for (let i = 0; this.status !== 0; i++)
      if (i === RESET_READS)
        throw new Finding(`the device does not finish its reset: status 0x${this.status.toString(16)}`)
    this.#queues.clear()
    this.machine.recycle()
    this.accepted = 0n
  }

  offers(feature: bigint): boolean {
    return (this.offered & feature) !== 0n
  }
  /** Ends the case: the host cannot do that here. */
  unable(what: string): never {
    throw new NotApplicable(`the host cannot ${what} here`)
  }
  needs(feature: bigint, name: string): void {
    if (!this.offers(feature)) throw new NotApplicable(`the device does not offer ${name}`)
  }
  negotiated(feature: bigint): boolean {
    return (this.accepted & feature) !== 0n
  }

  /** Reset to FEATURES_OK; whether the device accepted. */
  negotiate(features: bigint): boolean {
    this.reset()
    this.status = ACKNOWLEDGE
    this.status = ACKNOWLEDGE | DRIVER
    this.registers.setFeatures(features)
    this.accepted = features
    this.status = ACKNOWLEDGE | DRIVER | FEATURES_OK
    return (this.status & FEATURES_OK) !== 0
  }

  // --- queues

  /** Queues that the number of ports makes (§5.3.2), as far as the device has them. */
  queueIndices(): number[] {
    if (!this.negotiated(VIRTIO_CONSOLE_F_MULTIPORT)) return [0, 1]
    return Array.from({ length: transmitqOf(this.maxPorts() - 1) + 1 }, (_, i) => i)
  }
  maxPorts(): number {
    if (!this.offers(VIRTIO_CONSOLE_F_MULTIPORT)) return 1
    return Math.min(this.registers.config(CONSOLE_CONFIG_MAX_NR_PORTS, 4), 511)
  }
  sizeMax(queue: number): number {
    return this.registers.select(queue).read('queue_size')
  }

  /** Memory for a queue; the device is told nothing. */
  make(index: number, size: number): RawQueue {
    const ring = this.machine.allocate(RING_LEN)
    const pages = this.machine.allocate(size * PAGE_LEN)
    const queue = new RawQueue(index, size, ring, pages, (n) => this.registers.notify(n))
    this.#queues.set(index, queue)
    return queue
  }

  /** Sets a queue up and enables it. */
  enable(index: number, size: number = Math.min(this.sizeMax(index), SIZE_MAX), vector?: number): RawQueue {
    const queue = this.make(index, size)
    this.place(queue, vector)
    this.registers.write('queue_enable', 1)
    return queue
  }

  /** Writes size, addresses and vector of a queue. */
  place(queue: RawQueue, vector: number = this.vectorFor(queue.index)): void {
    const { registers } = this
    registers.select(queue.index).write('queue_size', queue.size)
    registers.setAddress('desc', queue.at.desc)
    registers.setAddress('driver', queue.at.avail)
    registers.setAddress('device', queue.at.used)
    if (this.vectors > 0) registers.write('queue_msix_vector', vector)
  }

  /** Vector 0 is for configuration changes; queues share the others where there are not enough. */
  vectorFor(queue: number): number {
    if (this.vectors === 0) return VIRTIO_MSI_NO_VECTOR
    return this.vectors === 1 ? 0 : 1 + (queue % (this.vectors - 1))
  }
  /** Interrupts for a queue, and for the configuration, until now. */
  queueInterrupts(queue: number): number {
    return this.irq!.count(this.vectorFor(queue))
  }
  configInterrupts(): number {
    return this.irq!.count(0)
  }

  queue(index: number): RawQueue {
    const queue = this.#queues.get(index)
    if (!queue) throw new Error(`this case has not enabled queue ${index}`)
    return queue
  }
  transmitq(port: number): RawQueue {
    return this.queue(transmitqOf(port))
  }
  receiveq(port: number): RawQueue {
    return this.queue(receiveqOf(port))
  }

  /** From reset to DRIVER_OK. */
  start(options: StartOptions = {}): this {
    this.forget()
    this.prepare(options)
    this.status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
    return this
  }

  /** All of that but DRIVER_OK. */
  prepare({ features = BASIC, queues, vectors, size }: StartOptions = {}): void {
    this.vectors = vectors ?? Math.min(this.registers.msix?.vectors ?? 0, 32)
    this.irq = this.machine.interrupts(this.vectors)
    const wanted = features & this.offered
    if (!this.negotiate(wanted)) throw new Finding(`the features 0x${wanted.toString(16)} were refused`)
    if (this.vectors > 0) this.registers.write('config_msix_vector', 0)
    for (const index of queues ?? this.queueIndices())
      this.enable(index, Math.min(this.sizeMax(index), size ?? SIZE_MAX))
  }

  get needsReset(): boolean {
    return (this.status & NEEDS_RESET) !== 0
  }

  /** Makes available what can be no chain, and waits until the device has seen that only a reset helps. */
  async break(queue: RawQueue): Promise<void> {
    queue.avail(queue.size)
    queue.notify()
    await this.until(() => this.needsReset, 'DEVICE_NEEDS_RESET after a descriptor past the end of the table')
  }

  // --- control messages

  /** Buffers for control messages. */
  postControl(count: number = this.queue(CONTROL_RECEIVEQ).size): void {
    const queue = this.queue(CONTROL_RECEIVEQ)
    for (let i = 0; i < Math.min(count, queue.size); i++) queue.postPage(i)
    queue.notify()
  }

  /** One message, waited for until the device has given its buffer back. */
  async say(id: number, event: number, value: number): Promise<void> {
    await this.sayBytes(encodeControl(id, event, value))
  }
  async sayBytes(bytes: Uint8Array): Promise<void> {
    const queue = this.queue(CONTROL_TRANSMITQ)
    const before = queue.usedIdx
    queue.put(bytes)
    queue.notify()
    await this.until(() => queue.usedIdx !== before, 'the device to give a control message back')
    this.hear()
  }

  /** Takes what the device has said, and gives it the buffers back. */
  hear(): ControlNews[] {
    const queue = this.#queues.get(CONTROL_RECEIVEQ)
    if (!queue) return []
    const news = queue.takeUsed().flatMap(({ id: page, len }) => {
      const bytes = page < queue.size ? queue.page(page).slice(0, len) : new Uint8Array(0)
      if (page < queue.size) queue.postPage(page)
      const message = decodeControl(bytes)
      return message ? [{ ...message, tail: Buffer.from(bytes.subarray(8)), len }] : []
    })
    if (news.length > 0) queue.notify()
    for (const message of news) this.#follow(message)
    this.heard.push(...news)
    return news
  }

  #follow({ id, event, value, tail }: ControlNews): void {
    if (event === VIRTIO_CONSOLE_DEVICE_ADD && !this.ports.has(id))
      this.ports.set(id, { id, name: undefined, console: false, open: false })
    const port = this.ports.get(id)
    if (!port) return
    if (event === VIRTIO_CONSOLE_DEVICE_REMOVE) this.ports.delete(id)
    else if (event === VIRTIO_CONSOLE_CONSOLE_PORT) port.console = value === 1
    else if (event === VIRTIO_CONSOLE_PORT_OPEN) port.open = value !== 0
    else if (event === VIRTIO_CONSOLE_PORT_NAME) port.name ??= tail.toString('utf8').replace(/\0.*$/s, '')
  }

  /** Started, and every port made ready, as an honest driver does it. */
  async up(options: StartOptions = {}): Promise<this> {
    this.start(options)
    if (!this.negotiated(VIRTIO_CONSOLE_F_MULTIPORT)) {
      this.ports.set(0, { id: 0, name: undefined, console: true, open: true })
      return this
    }
    this.postControl()
    await this.say(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
    await this.quiet()
    for (const id of this.ports.keys()) await this.say(id, VIRTIO_CONSOLE_PORT_READY, 1)
    await this.quiet()
    return this
  }

  /** What the device has said is of an earlier life. */
  forget(): void {
    this.heard.length = 0
    this.ports.clear()
  }

  /** Until the device says nothing more. */
  async quiet(): Promise<void> {
    do await this.machine.settle()
    while (this.hear().length > 0)
  }

  // --- waiting

  settle(): Promise<void> {
    return this.machine.settle()
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    const end = Date.now() + this.machine.patience
    for (let turns = 0; !condition(); turns++) {
      if (Date.now() > end) throw new Finding(`waited ${this.machine.patience / 1000} s in vain for ${what}`)
      if (turns % 64 === 63) {
        const dead = this.machine.dead()
        if (dead !== undefined) throw new Finding(dead)
      }
      await (turns < 16 ? new Promise((resolve) => setImmediate(resolve)) : sleep(1))
    }
  }
}

/** "PORT_OPEN 1 1", for comparing. */
export function controlWords({ event, id, value }: ControlNews): string {
  return `${CONTROL_EVENT_NAMES[event] ?? `event ${event}`} ${id} ${value}`
}
