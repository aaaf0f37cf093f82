/**
 * A VMM with a driver in it, driven step by step: the real vfio-user socket, memory in memfds, interrupts by eventfd,
 * rings written by hand. It goes by interrupts and by notification suppression alone, so that one which is lost is
 * seen.
 */

import { closeSync, ftruncateSync } from 'node:fs'
import { createEventfd, drainEventfd } from '../src/ffi/eventfd.ts'
import { createMemfd, SharedMapping } from '../src/ffi/mmap.ts'
import { Watch } from '../src/ffi/poll.ts'
import type { Region } from '../src/mem/guest-memory.ts'
import { VIRTIO_PCI_COMMON_DFSELECT, VIRTIO_PCI_COMMON_GFSELECT, VIRTIO_PCI_COMMON_Q_SELECT } from '../src/spec/pci.ts'
import { access, concat, FakeVmm, message, turn } from '../test/support/fake-vmm.ts'
import { RAM_QUEUES, GuestQueue } from './queue.ts'

/** BAR 4 is region 4 of vfio-user, configuration space region 7. */
const BAR = 4
const CONFIG = 7
const NOTIFY = 0x3000
const COMMAND = 4
const MSIX_CONTROL = 0x9a
const ISR = 0x1000
const SET_EVENTFDS = 0x24
const UNMASK = 0x11
const INTX = 0
const MSIX = 2
const POSTED = 0x10
const REPLY = 1
const DMA_READ = 11
const MIB = 1 << 20
const CONNECT_MS = 10_000
const SELECTS: readonly number[] = [VIRTIO_PCI_COMMON_DFSELECT, VIRTIO_PCI_COMMON_GFSELECT, VIRTIO_PCI_COMMON_Q_SELECT]

/** What the VMM can map: two parts of one file, and another file that is lent read-only. */
export const MAPS: Readonly<Record<MapName, MapPlace>> = {
  low: { file: 0, base: 0x10_0000, offset: 0, size: 4 * MIB, flags: 3 },
  high: { file: 0, base: 0x1_4000_0000, offset: 4 * MIB, size: 4 * MIB, flags: 3 },
  rom: { file: 1, base: 0x8000_0000, offset: 0, size: 2 * MIB, flags: 1 },
}
export type MapName = 'low' | 'high' | 'rom'

interface MapPlace {
  file: number
  base: number
  offset: number
  size: number
  flags: number
}

export const VECTORS = 6

export class Guest {
  vmm!: FakeVmm
  readonly regions: Record<MapName, Region>
  readonly queues: Map<number, GuestQueue> = new Map()
  /** Connections that ended before the VMM got its answer to VERSION. */
  lostConnections = 0
  eventIdx = false
  /** The line interrupt in place of MSI-X. */
  intx = false
  configInterrupts = 0
  /** The selectors as they were written last: the next access depends on them. */
  readonly selects: Map<number, number> = new Map()
  /** What the device did that no device may do. */
  fault: string | undefined
  readonly #files: number[]
  readonly #eventfds: number[] = []
  readonly #watches: Watch[] = []
  #lines: Promise<void> = Promise.resolve()
  #sending: Promise<void> = Promise.resolve()

  constructor() {
    this.#files = [8 * MIB, 2 * MIB].map((size) => {
      const fd = createMemfd('guest', true)
      ftruncateSync(fd, size)
      return fd
    })
    const mappings = [
      new SharedMapping(this.#files[0]!, 8 * MIB, true),
      new SharedMapping(this.#files[1]!, 2 * MIB, true),
    ]
    const region = ({ file, base, offset, size }: MapPlace): Region => {
      const { bytes, address } = mappings[file]!.pieces(offset, size)[0]!
      return { base, size, bytes, address, writable: true }
    }
    this.regions = { low: region(MAPS.low), high: region(MAPS.high), rom: region(MAPS.rom) }
    for (let vector = 0; vector < VECTORS; vector++) {
      const fd = createEventfd()
      this.#eventfds.push(fd)
      const watch = new Watch(fd, () => this.#interrupt(vector, fd))
      watch.want(true, false)
      this.#watches.push(watch)
    }
  }

  // --- the VMM

  /** A connection that was accepted by a process which is killed before it could hand it on is lost: again, then. */
  async connect(path: string): Promise<void> {
    const deadline = performance.now() + CONNECT_MS
    for (;;) {
      try {
        const vmm = await FakeVmm.attach(path)
        vmm.onRequest = ({ id, command, payload }) => this.#lend(vmm, id, command, payload)
        this.vmm = vmm
        return
      } catch (error) {
        if (!String(error).includes('hung up') || performance.now() > deadline) throw error
        this.lostConnections++
        await turn()
      }
    }
  }

  map(name: MapName): Promise<number> {
    const { file, base, offset, size, flags } = MAPS[name]
    return this.vmm.mapMemory(base, size, this.#files[file], offset, flags)
  }

  unmap(name: MapName): Promise<number> {
    return this.vmm.unmapMemory(MAPS[name].base, MAPS[name].size)
  }

  /** Whether the device has this memory: another mapping in its place is refused then (EEXIST). Changes nothing. */
  async isMapped(name: MapName): Promise<boolean> {
    const { base } = MAPS[name]
    const errno = await this.vmm.mapMemory(base, 4096, this.#files[1], 4096, 1)
    if (errno === 0) await this.vmm.unmapMemory(base, 4096)
    return errno !== 0
  }

  async connectInterrupts(): Promise<void> {
    const errno = this.intx
      ? await this.vmm.setIrqs(SET_EVENTFDS, INTX, 0, 1, this.#eventfds.slice(0, 1))
      : await this.vmm.setIrqs(SET_EVENTFDS, MSIX, 0, VECTORS, this.#eventfds)
    if (errno !== 0) throw new Error(`SET_IRQS: errno ${errno}`)
  }

  async read(offset: number, len: number, region: number = BAR): Promise<Buffer> {
    const reply = await this.vmm.request(9, access(region, offset, len))
    if (reply.errno !== 0) throw new Error(`a read of ${len} bytes at ${offset}: errno ${reply.errno}`)
    return reply.payload.subarray(16)
  }

  async readNumber(offset: number, len: number, region: number = BAR): Promise<number> {
    return (await this.read(offset, len, region)).readUIntLE(0, len)
  }

  async write(offset: number, value: number, len: number, region: number = BAR): Promise<void> {
    const bytes = Buffer.alloc(len)
    bytes.writeUIntLE(value, 0, len)
    if (region === BAR && SELECTS.includes(offset)) this.selects.set(offset, value)
    const { errno } = await this.vmm.request(10, access(region, offset, len, bytes))
    if (errno !== 0) throw new Error(`a write of ${value} at ${offset}: errno ${errno}`)
  }

  /** Memory and bus mastering on, MSI-X on. */
  async enableFunction(): Promise<void> {
    await this.write(COMMAND, 6, 2, CONFIG)
    if (!this.intx) await this.write(MSIX_CONTROL, 0x8000, 2, CONFIG)
  }

  configSpace(): Promise<Buffer> {
    return this.read(0, 256, CONFIG)
  }

  // --- the driver's queues

  queue(index: number): GuestQueue {
    const queue = this.queues.get(index)
    if (!queue) throw new Error(`queue ${index} is not enabled`)
    return queue
  }

  makeQueue(index: number, size: number): GuestQueue {
    if (index >= RAM_QUEUES) throw new Error(`there is no memory for queue ${index}`)
    const queue = new GuestQueue(index, size, this.regions, this.eventIdx, (at) => this.#notify(at))
    this.queues.set(index, queue)
    return queue
  }

  close(): void {
    for (const watch of this.#watches) watch.close()
    for (const fd of [...this.#files, ...this.#eventfds]) closeSync(fd)
    this.vmm?.close()
  }

  /** DMA_READ: what the device compares with what it sees by its own mapping. */
  #lend(vmm: FakeVmm, id: number, command: number, payload: Buffer): void {
    const address = Number(payload.readBigUInt64LE(0))
    const len = Number(payload.readBigUInt64LE(8))
    const region = Object.values(this.regions).find(({ base, size }) => address >= base && address + len <= base + size)
    if (command !== DMA_READ || !region) return void (this.fault ??= `command ${command} of the device for ${address}`)
    const data = region.bytes.subarray(address - region.base, address - region.base + len)
    const bytes = message(id, DMA_READ, concat(payload.subarray(0, 16), data), REPLY)
    this.#sending = this.#sending.then(() => vmm.send(bytes)).catch(() => {})
  }

  /** A posted write, as QEMU sends it: nobody waits for it. */
  #notify(index: number): void {
    const bytes = message(this.vmm.nextId++, 10, access(BAR, NOTIFY + 4 * index, 2, Buffer.from([index, 0])), POSTED)
    const { vmm } = this
    this.#sending = this.#sending.then(() => vmm.send(bytes)).catch(() => {})
  }

  #interrupt(vector: number, fd: number): void {
    drainEventfd(fd)
    if (this.intx) {
      this.#lines = this.#lines.then(() => this.#lineInterrupt()).catch(() => {})
      return
    }
    if (vector === 0) this.configInterrupts++
    this.#served((queue) => queue.vector === vector)
  }

  /** Reading the ISR register lets the line go (§4.1.4.5); then the VMM takes its mask off. */
  async #lineInterrupt(): Promise<void> {
    const isr = (await this.read(ISR, 1))[0]!
    if (isr & 2) this.configInterrupts++
    if (isr & 1) this.#served(() => true)
    await this.vmm.setIrqs(UNMASK, INTX, 0, 1)
  }

  #served(whose: (queue: GuestQueue) => boolean): void {
    for (const queue of this.queues.values())
      if (whose(queue))
        try {
          queue.interrupted()
        } catch (error) {
          this.fault ??= String(error)
        }
  }
}
