/**
 * The driver's end of a split virtqueue: make chains available, publish them, take back what the device has used.
 *
 * The mirror of device-queue.ts. What the device may write is never believed: descriptors are written and not read
 * back (their owners and lengths are kept here), used entries are checked against what is in flight. `add` stages,
 * `publish` makes all that was staged available with one index store and says whether the device wants to be notified.
 *
 *     do {
 *       queue.disableInterrupts()
 *       while (queue.takeUsed(used)) take(used.head, used.len)
 *     } while (queue.enableInterrupts())       // true: more slipped in while we were arming
 */

import { PeerFault } from '../errors.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'
import {
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../spec/split.ts'
import { needEvent } from './event-idx.ts'
import { SplitRing, type RingAddresses } from './split-ring.ts'

/** One piece of a chain, at the address under which the device knows it. */
export interface Segment {
  address: number
  len: number
}

/** Memory for indirect tables, one of `entries` descriptors for each head; only where INDIRECT_DESC was negotiated. */
export interface IndirectArea {
  readonly address: number
  readonly bytes: Uint8Array
  readonly entries: number
}

export interface DriverQueueOptions {
  eventIdx: boolean
  indirect?: IndirectArea | undefined
  /**
   * Passes over a used entry that names nothing in flight: some devices acknowledge control messages twice. Without it
   * such an entry is a fault.
   */
  tolerant?: boolean
}

/** What `takeUsed` found; one per queue user is enough. */
export interface Used {
  head: number
  /** Bytes that the device wrote; 0 for chains without a writable part, whatever the device says. */
  len: number
}

/** No head: the queue is full. */
export const NO_HEAD = -1

export class DriverQueue {
  readonly index: number
  readonly size: number
  readonly #ring: SplitRing
  readonly #eventIdx: boolean
  readonly #tolerant: boolean
  readonly #indirect: IndirectArea | undefined
  readonly #tables: Uint32Array | undefined
  /** Free descriptors as a list: the next one after each. */
  readonly #next: Uint16Array
  #firstFree = 0
  #free: number
  /** Descriptors of the chain in flight that starts at each head; 0: none does. */
  readonly #count: Uint16Array
  /** Writable bytes of that chain. */
  readonly #writable: Float64Array
  #idx = 0
  #publishedIdx = 0
  #usedIdx = 0
  /** Used entries up to here are there: the device's index, as it was last read. */
  #seenIdx = 0
  #inFlight = 0
  #broken = false
  /** Used entries that were passed over. */
  duplicates = 0

  /** The three parts must lie zeroed in `memory`; PeerFault when size or alignment cannot be right. */
  constructor(index: number, memory: GuestMemory, size: number, at: RingAddresses, options: DriverQueueOptions) {
    this.index = index
    this.size = size
    this.#ring = new SplitRing(memory, size, at)
    this.#eventIdx = options.eventIdx
    this.#tolerant = options.tolerant ?? false
    this.#indirect = options.indirect
    if (options.indirect) {
      const { bytes, entries } = options.indirect
      this.#tables = new Uint32Array(bytes.buffer, bytes.byteOffset, size * entries * (VIRTQ_DESC_SIZE / 4))
    }
    this.#next = new Uint16Array(size)
    for (let i = 0; i < size; i++) this.#next[i] = i + 1
    this.#free = size
    this.#count = new Uint16Array(size)
    this.#writable = new Float64Array(size)
  }

  /** Whether the device broke a rule: nothing moves any more until it is reset. */
  get broken(): boolean {
    return this.#broken
  }
  /** Free descriptors. */
  get free(): number {
    return this.#free
  }
  /** Chains that the device has not given back, with those that it gets with the next `publish`. */
  get inFlight(): number {
    return this.#inFlight
  }

  /** Chains that the device has not heard of. */
  get staged(): number {
    return (this.#idx - this.#publishedIdx) & 0xffff
  }

  /**
   * Stages a chain, readable segments before writable ones (§2.7.4.2); returns its head, or NO_HEAD when there is no
   * room for it. The memory belongs to the device until `takeUsed` returns the head.
   */
  add(readable: readonly Segment[], writable: readonly Segment[]): number {
    const count = readable.length + writable.length
    if (count === 0) throw new RangeError('a descriptor chain has at least one segment')
    const indirect = count > 1 && this.#indirect !== undefined && count <= this.#indirect.entries
    const needed = indirect ? 1 : count
    if (needed > this.#free || this.#broken) return NO_HEAD
    const head = this.#firstFree
    let total = 0
    for (const { len } of writable) total += len
    if (indirect) this.#addIndirect(head, readable, writable)
    else this.#addDirect(head, readable, writable)
    return this.#stage(head, needed, total)
  }

  /** The same for a chain of one segment, which most are. */
  addOne(address: number, len: number, writable: boolean): number {
    if (this.#free === 0 || this.#broken) return NO_HEAD
    const head = this.#firstFree
    this.#firstFree = this.#next[head]!
    put(this.#ring.desc, head, address, len, writable ? VIRTQ_DESC_F_WRITE : 0, 0)
    return this.#stage(head, 1, writable ? len : 0)
  }

  #stage(head: number, descriptors: number, writable: number): number {
    this.#free -= descriptors
    this.#count[head] = descriptors
    this.#writable[head] = writable
    this.#ring.setAvailRing(this.#idx, head)
    this.#idx = (this.#idx + 1) & 0xffff
    this.#inFlight++
    return head
  }

  #addDirect(head: number, readable: readonly Segment[], writable: readonly Segment[]): void {
    const count = readable.length + writable.length
    let at = head
    for (let i = 0; i < count; i++) {
      const write = i >= readable.length
      const next = this.#next[at]!
      const more = i + 1 < count
      const flags = (write ? VIRTQ_DESC_F_WRITE : 0) | (more ? VIRTQ_DESC_F_NEXT : 0)
      const { address, len } = write ? writable[i - readable.length]! : readable[i]!
      put(this.#ring.desc, at, address, len, flags, more ? next : 0)
      at = next
    }
    this.#firstFree = at
  }

  #addIndirect(head: number, readable: readonly Segment[], writable: readonly Segment[]): void {
    const area = this.#indirect!
    const first = head * area.entries
    const count = readable.length + writable.length
    for (let i = 0; i < count; i++) {
      const write = i >= readable.length
      const more = i + 1 < count
      const flags = (write ? VIRTQ_DESC_F_WRITE : 0) | (more ? VIRTQ_DESC_F_NEXT : 0)
      const { address, len } = write ? writable[i - readable.length]! : readable[i]!
      put(this.#tables!, first + i, address, len, flags, more ? i + 1 : 0)
    }
    const table = area.address + first * VIRTQ_DESC_SIZE
    this.#firstFree = this.#next[head]!
    put(this.#ring.desc, head, table, count * VIRTQ_DESC_SIZE, VIRTQ_DESC_F_INDIRECT, 0)
  }

  /** Makes all staged chains available; true when the device wants to be notified of them (§2.7.10). */
  publish(): boolean {
    if (this.#idx === this.#publishedIdx || this.#broken) return false
    const old = this.#publishedIdx
    this.#publishedIdx = this.#idx
    this.#ring.publishAvailIdx(this.#idx)
    return this.#shouldNotify(old)
  }

  #shouldNotify(old: number): boolean {
    if (this.#eventIdx) return needEvent(this.#ring.availEvent(), this.#publishedIdx, old)
    return (this.#ring.usedFlags() & VIRTQ_USED_F_NO_NOTIFY) === 0
  }

  /**
   * Takes the next used chain; false when there is none. PeerFault when the entry cannot be right. A tolerant queue
   * passes over a round of the ring at most, and then says that there is none for now.
   */
  takeUsed(used: Used): boolean {
    let passed = 0
    while (this.#usedIdx !== this.#seenIdx || this.#look() > 0) {
      const id = this.#ring.usedId(this.#usedIdx)
      const len = this.#ring.usedLen(this.#usedIdx)
      const count = id < this.size ? this.#count[id]! : 0
      if (count === 0) {
        if (id >= this.size || !this.#tolerant)
          throw this.#fault(`used entry names descriptor ${id}, which is not in flight (§2.7.8)`)
        this.duplicates++
        this.#usedIdx = (this.#usedIdx + 1) & 0xffff
        if (++passed === this.size) return false
        continue
      }
      const writable = this.#writable[id]!
      // Devices that report the bytes read of a chain without a writable part are many; drivers ignore that (§5.3.6.3).
      if (writable > 0 && len > writable)
        throw this.#fault(`used entry claims ${len} bytes written to a buffer of ${writable} (§2.7.8.2)`)
      this.#usedIdx = (this.#usedIdx + 1) & 0xffff
      this.#release(id, count)
      used.head = id
      used.len = writable > 0 ? len : 0
      return true
    }
    return false
  }

  /** Whether the device has given something back that was not taken yet. */
  hasUsed(): boolean {
    return this.#look() > 0
  }

  /** Asks for no interrupts: we look anyway. With EVENT_IDX a used_event that was passed does that. */
  disableInterrupts(): void {
    if (!this.#eventIdx) this.#ring.setAvailFlags(VIRTQ_AVAIL_F_NO_INTERRUPT)
  }

  /**
   * Asks for an interrupt once more than `ahead` chains are used, where EVENT_IDX allows for that, else with the next
   * one; true when that is so already, and no interrupt may come for it.
   */
  enableInterrupts(ahead = 0): boolean {
    if (this.#broken) return false
    if (this.#eventIdx) this.#ring.setUsedEvent((this.#usedIdx + ahead) & 0xffff)
    else this.#ring.setAvailFlags(0)
    return this.#look() > (this.#eventIdx ? ahead : 0)
  }

  /** Reads the device's index; returns how many entries there are to take. */
  #look(): number {
    if (this.#broken) return 0
    const seen = this.#ring.usedIdx()
    const used = (seen - this.#usedIdx) & 0xffff
    // What was not published cannot have been used; a tolerant queue allows for doubles, but not for a second round.
    const most = this.#tolerant ? this.size : this.#inFlight - this.staged
    if (used > most) throw this.#fault(`used index is ${used} ahead with ${most} chains in flight (§2.7.8)`)
    this.#seenIdx = seen
    return used
  }

  #release(head: number, count: number): void {
    this.#count[head] = 0
    // The list from `head` on is still the order in which the descriptors were taken: nobody else writes #next.
    let last = head
    for (let i = 1; i < count; i++) last = this.#next[last]!
    this.#next[last] = this.#firstFree
    this.#firstFree = head
    this.#free += count
    this.#inFlight--
  }

  #fault(message: string): PeerFault {
    this.#broken = true
    this.#seenIdx = this.#usedIdx
    return new PeerFault(`queue ${this.index}: ${message}`)
  }
}

/** Numbers go into the table modulo 2^32, without their fraction: so an address needs no arithmetic to be halved. */
function put(table: Uint32Array, index: number, address: number, len: number, flags: number, next: number): void {
  const at = index * 4
  table[at] = address
  table[at + 1] = address / 2 ** 32
  table[at + 2] = len
  table[at + 3] = flags | (next << 16)
}
