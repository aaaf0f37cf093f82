/** A console device that says what the test wants: real registers, and rings that are written by hand. */

import { LoopbackMachine } from '../../src/device/attach/loopback.ts'
import type { DeviceHost, VirtioDevice } from '../../src/device/device.ts'
import type { PciFunction } from '../../src/device/pci/function.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import { attachLoopback } from '../../src/driver/attach/loopback.ts'
import type { DriverOptions } from '../../src/driver/console-options.ts'
import { ConsoleDriver } from '../../src/driver/console.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { SplitRing, type RingAddresses } from '../../src/ring/split-ring.ts'
import { CONTROL_EVENT_NAMES, decodeControl, encodeControl } from '../../src/spec/console.ts'

export class FakeConsole implements VirtioDevice {
  readonly id = 3
  features: bigint = (1n << 32n) | 3n
  queueCount = 10
  size = 64
  maxPorts = 4
  cols = 0
  rows = 0
  acceptable = true
  /** What the driver chose. */
  accepted: bigint = 0n
  started = false
  readonly rings: (SplitRing | undefined)[] = []
  /** Where the driver put them, and what used.flags were at that moment. */
  readonly places: (RingAddresses & { size: number; usedFlags: number })[] = []
  /** "PORT_READY 1 1", in order. */
  readonly heard: string[] = []
  /** Notified queues before DRIVER_OK. */
  early: number[] = []
  /** Whether control messages are given back, and how often. */
  acknowledge = 1
  #host: DeviceHost | undefined
  #memory: GuestMemory | undefined
  #seen: number[] = []
  #used: number[] = []

  queueSizeMax(queue: number): number {
    return queue < this.queueCount ? this.size : 0
  }
  readConfig(offset: number, out: Uint8Array): void {
    const bytes = new Uint8Array(12)
    const view = new DataView(bytes.buffer)
    view.setUint16(0, this.cols, true)
    view.setUint16(2, this.rows, true)
    view.setUint32(4, this.maxPorts, true)
    out.set(bytes.subarray(offset, offset + out.length))
  }
  writeConfig(): void {}
  acceptFeatures(features: bigint): boolean {
    this.accepted = features
    return this.acceptable
  }
  enableQueue(queue: number, memory: GuestMemory, size: number, at: RingAddresses): boolean {
    this.#memory = memory
    const ring = new SplitRing(memory, size, at)
    this.rings[queue] = ring
    this.places[queue] = { ...at, size, usedFlags: ring.usedFlags() }
    this.#seen[queue] = this.#used[queue] = 0
    return true
  }
  resetQueue(): void {}
  resume(): void {}
  start(): void {
    this.started = true
  }
  notify(queue: number): void {
    if (!this.started) this.early.push(queue)
    if (queue === 3) this.listen()
  }
  memoryChanged(): void {}
  setBusMaster(): void {}
  reset(): void {
    this.started = false
    this.rings.length = 0
  }
  connect(host: DeviceHost | undefined): void {
    this.#host = host
  }
  get host(): DeviceHost {
    return this.#host!
  }

  /** Reads the control messages of the driver. */
  listen(): void {
    while (this.available(3) > 0) {
      const head = this.take(3)
      const message = decodeControl(this.bytes(3, head))!
      this.heard.push(`${CONTROL_EVENT_NAMES[message.event]} ${message.id} ${message.value}`)
      for (let i = 0; i < this.acknowledge; i++) this.use(3, head, 0, i === this.acknowledge - 1)
    }
  }

  /** The memory of a descriptor. */
  bytes(queue: number, head: number): Uint8Array {
    const { desc } = this.rings[queue]!
    const address = desc[4 * head + 1]! * 2 ** 32 + desc[4 * head]!
    const region = this.#memory!.region(address)!
    return region.bytes.subarray(address - region.base, address - region.base + desc[4 * head + 2]!)
  }

  /** Chains that the driver has made available and that were not taken. */
  available(queue: number): number {
    return (this.rings[queue]!.availIdx() - this.#seen[queue]!) & 0xffff
  }

  /** Takes the next available chain. */
  take(queue: number): number {
    if (this.available(queue) === 0) throw new Error(`queue ${queue} is empty`)
    const head = this.rings[queue]!.availRing(this.#seen[queue]!)
    this.#seen[queue] = (this.#seen[queue]! + 1) & 0xffff
    return head
  }

  /** Writes a used entry, whatever it says. */
  use(queue: number, id: number, len: number, interrupt = true): void {
    const ring = this.rings[queue]!
    ring.setUsed(this.#used[queue]!, id, len)
    const idx = (this.#used[queue]! + 1) & 0xffff
    this.#used[queue] = idx
    ring.publishUsedIdx(idx)
    if (interrupt) this.host.interruptQueue(queue)
  }

  /** Puts bytes into the next buffer of a queue. */
  send(queue: number, bytes: Uint8Array, claim: number = bytes.length): void {
    const head = this.take(queue)
    this.bytes(queue, head).set(bytes.subarray(0, this.bytes(queue, head).length))
    this.use(queue, head, claim)
  }

  /** A control message. */
  say(id: number, event: number, value: number, tail?: Uint8Array): void {
    this.send(2, encodeControl(id, event, value, tail))
  }
}

/** One access of the driver to its function; bar -1 is configuration space. */
export interface Access {
  kind: 'read' | 'write'
  bar: number
  offset: number
  len: number
  value: number
}

export interface FakePair {
  fake: FakeConsole
  /** All accesses of the driver, in order. */
  accesses: Access[]
  machine: LoopbackMachine
  pci: VirtioPci
  driver: ConsoleDriver
  log: string[]
  events: string[]
}

/** The driver in front of it; `prepare` changes the device first. */
export function fakePair(prepare: (fake: FakeConsole) => void = () => {}, options: DriverOptions = {}): FakePair {
  const fake = new FakeConsole()
  prepare(fake)
  const memory = new GuestMemory()
  const pci = new VirtioPci(fake, memory, { vectors: fake.queueCount + 1 })
  const accesses: Access[] = []
  const machine = new LoopbackMachine(recorded(pci, accesses), memory, { schedule: (deliver) => deliver() })
  const { transport, pool } = attachLoopback(machine)
  const log: string[] = []
  const events: string[] = []
  const note = (level: string) => (message: string) => void log.push(`${level}: ${message}`)
  const driver = new ConsoleDriver(transport, pool, {
    log: { error: note('error'), warn: note('warn'), info: note('info'), debug: () => {} },
    defer: setImmediate,
    onPort: ({ event, port }) => void events.push(`${event} ${port.id}`),
    ...options,
  })
  return { fake, accesses, machine, pci, driver, log, events }
}

function recorded(pci: VirtioPci, accesses: Access[]): PciFunction {
  const note = (kind: Access['kind'], bar: number, offset: number, bytes: Uint8Array): void => {
    const value = bytes.reduceRight((sum, byte) => sum * 256 + byte, 0)
    accesses.push({ kind, bar, offset, len: bytes.length, value })
  }
  return {
    ...{ barSizes: pci.barSizes, configSize: pci.configSize, vectors: pci.vectors, intx: pci.intx },
    readConfig(offset, out) {
      pci.readConfig(offset, out)
      note('read', -1, offset, out)
    },
    writeConfig(offset, data) {
      note('write', -1, offset, data)
      pci.writeConfig(offset, data)
    },
    readBar(bar, offset, out) {
      pci.readBar(bar, offset, out)
      note('read', bar, offset, out)
    },
    writeBar(bar, offset, data) {
      note('write', bar, offset, data)
      pci.writeBar(bar, offset, data)
    },
    reset: () => pci.reset(),
    connectIrq: (irq) => pci.connectIrq(irq),
  }
}
