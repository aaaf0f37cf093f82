/**
 * One split virtqueue in memory (§2.7): typed views bound once, and an accessor for every field, for both halves.
 *
 * This is the only file that knows about memory order. The index and event fields, which the two sides use to hand
 * entries over, go through Atomics: `Atomics.store` is a full fence on x86-64 (xchg) and store-release on arm64, so
 * that (a) entries are visible before the index that publishes them, and (b) a store of our own field is visible before
 * the load of the other side's that follows it. Without (b) both sides can see the old value and sleep for ever.
 * Everything else is a plain access, ordered by those.
 */

import { PeerFault } from '../errors.ts'
import { hex, type GuestMemory } from '../mem/guest-memory.ts'
import {
  VIRTQ_AVAIL_ALIGN,
  VIRTQ_DESC_ALIGN,
  VIRTQ_DESC_SIZE,
  VIRTQ_SIZE_MAX,
  VIRTQ_USED_ALIGN,
  virtqAvailLen,
  virtqUsedLen,
} from '../spec/split.ts'

if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1)
  throw new Error('vmchannel needs a little-endian host: virtqueues are little-endian and are read in place')

/** Guest-physical addresses of the three parts. */
export interface RingAddresses {
  desc: number
  avail: number
  used: number
}

export class SplitRing {
  readonly size: number
  readonly mask: number
  /** Four words a descriptor: addr lo, addr hi, len, flags | next << 16. */
  readonly desc: Uint32Array
  readonly #avail: Uint16Array
  readonly #used16: Uint16Array
  readonly #used32: Uint32Array
  readonly #usedEvent: number
  readonly #availEvent: number

  /** Checks size, alignment and that all of it is guest memory; PeerFault otherwise. */
  constructor(memory: GuestMemory, size: number, at: RingAddresses) {
    if (!(size > 0) || size > VIRTQ_SIZE_MAX || (size & (size - 1)) !== 0)
      throw new PeerFault(`queue size ${size} is not a power of two up to ${VIRTQ_SIZE_MAX} (§2.7)`)
    checkAlignment('descriptor table', at.desc, VIRTQ_DESC_ALIGN)
    checkAlignment('available ring', at.avail, VIRTQ_AVAIL_ALIGN)
    checkAlignment('used ring', at.used, VIRTQ_USED_ALIGN)
    this.size = size
    this.mask = size - 1
    const desc = place(memory, at.desc, size * VIRTQ_DESC_SIZE, false)
    this.desc = new Uint32Array(desc.buffer, desc.byteOffset, size * 4)
    // The device only reads the available ring, yet Atomics.load asks nothing of the mapping; a read-only ring is fine.
    const avail = place(memory, at.avail, virtqAvailLen(size), false)
    this.#avail = new Uint16Array(avail.buffer, avail.byteOffset, 3 + size)
    const used = place(memory, at.used, virtqUsedLen(size), true)
    this.#used16 = new Uint16Array(used.buffer, used.byteOffset, 3 + 4 * size)
    this.#used32 = new Uint32Array(used.buffer, used.byteOffset, 1 + 2 * size)
    this.#usedEvent = 2 + size
    this.#availEvent = 2 + 4 * size
  }

  // --- available ring: written by the driver, §2.7.6

  availIdx(): number {
    return Atomics.load(this.#avail, 1)
  }
  publishAvailIdx(idx: number): void {
    Atomics.store(this.#avail, 1, idx)
  }
  availRing(idx: number): number {
    return this.#avail[2 + (idx & this.mask)]!
  }
  setAvailRing(idx: number, head: number): void {
    this.#avail[2 + (idx & this.mask)] = head
  }
  availFlags(): number {
    return Atomics.load(this.#avail, 0)
  }
  setAvailFlags(flags: number): void {
    Atomics.store(this.#avail, 0, flags)
  }
  usedEvent(): number {
    return Atomics.load(this.#avail, this.#usedEvent)
  }
  setUsedEvent(idx: number): void {
    Atomics.store(this.#avail, this.#usedEvent, idx)
  }

  // --- used ring: written by the device, §2.7.8

  usedIdx(): number {
    return Atomics.load(this.#used16, 1)
  }
  publishUsedIdx(idx: number): void {
    Atomics.store(this.#used16, 1, idx)
  }
  usedId(idx: number): number {
    return this.#used32[1 + 2 * (idx & this.mask)]!
  }
  usedLen(idx: number): number {
    return this.#used32[2 + 2 * (idx & this.mask)]!
  }
  setUsed(idx: number, id: number, len: number): void {
    const at = 1 + 2 * (idx & this.mask)
    this.#used32[at] = id
    this.#used32[at + 1] = len
  }
  usedFlags(): number {
    return Atomics.load(this.#used16, 0)
  }
  setUsedFlags(flags: number): void {
    Atomics.store(this.#used16, 0, flags)
  }
  availEvent(): number {
    return Atomics.load(this.#used16, this.#availEvent)
  }
  setAvailEvent(idx: number): void {
    Atomics.store(this.#used16, this.#availEvent, idx)
  }
}

function checkAlignment(what: string, address: number, alignment: number): void {
  if (address % alignment !== 0) throw new PeerFault(`${what} at ${hex(address)} is not aligned to ${alignment} (§2.7)`)
}

/** Exactly [address, address + len) of guest memory; regions keep the alignment of guest addresses. */
function place(memory: GuestMemory, address: number, len: number, writable: boolean): Uint8Array {
  const region = memory.contiguous(address, len, writable)
  return region.bytes.subarray(address - region.base, address - region.base + len)
}
