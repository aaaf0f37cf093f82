/**
 * Guest memory: the only room that turns a guest-physical address into bytes.
 *
 * An attachment adds and removes regions; queues translate through `region()` and `append()`, and bind their rings
 * again when `onChange` tells them that the map has changed. Addresses are numbers: a region that reaches 2^53 is
 * refused at the door.
 */

import { PeerFault } from '../errors.ts'
import type { Iovec } from './iovec.ts'

export interface Region {
  /** Guest-physical address of the first byte. */
  readonly base: number
  /** Bytes that this region answers for: [base, base + size). */
  readonly size: number
  /**
   * The memory itself; `bytes[0]` is `base`. May be longer than `size` where one file is mapped in windows, so that a
   * structure which starts near the end of this region is still in one piece.
   */
  readonly bytes: Uint8Array
  /** Host virtual address of `bytes[0]`; 0 where there is none. */
  readonly address: number
  readonly writable: boolean
}

export class GuestMemory {
  /** Counts changes of the map: who has looked something up in it compares. */
  generation = 0
  /** Sorted by base, never overlapping. */
  #regions: Region[] = []
  #last: Region | undefined
  readonly #listeners = new Set<() => void>()

  get regions(): readonly Region[] {
    return this.#regions
  }

  /**
   * Adds regions, given in the order of their addresses, with nothing between them that is there already; PeerFault
   * when one is empty, overlaps another, or leaves the range of exact numbers. Then none is added.
   */
  add(...regions: readonly Region[]): void {
    const index = this.#indexAfter(regions[0]!.base)
    const next = this.#regions[index]
    let before = this.#regions[index - 1]
    for (const region of regions) {
      const { base, size } = region
      if (!(size > 0) || !(base >= 0) || base + size > Number.MAX_SAFE_INTEGER)
        throw new PeerFault(`memory region at ${hex(base)} of ${size} bytes is out of range`)
      // The bytes of a mapped file are not asked for before they are touched: the first time is dear.
      if (region.address === 0 && region.bytes.length < size)
        throw new PeerFault(`memory region at ${hex(base)} has fewer bytes than its size`)
      if (((region.address || region.bytes.byteOffset) - base) % 16 !== 0)
        throw new PeerFault(`memory region at ${hex(base)} is mapped at an odd place`)
      if ((before && before.base + before.size > base) || (next && base + size > next.base))
        throw new PeerFault(`memory region at ${hex(base)} of ${size} bytes overlaps another`)
      before = region
    }
    this.#regions.splice(index, 0, ...regions)
    this.#changed()
  }

  /** Removes all regions inside [base, base + size); returns how many. A region that sticks out is a PeerFault. */
  remove(base: number, size: number): number {
    const after = this.#indexAfter(base)
    const before = this.#regions[after - 1]
    const from = before && before.base + before.size > base ? after - 1 : after
    let to = from
    while (to < this.#regions.length && this.#regions[to]!.base < base + size) to++
    if (to === from) return 0
    const last = this.#regions[to - 1]!
    if (this.#regions[from]!.base < base || last.base + last.size > base + size)
      throw new PeerFault(`removing ${hex(base)} of ${size} bytes would split a memory region`)
    this.#regions.splice(from, to - from)
    this.#changed()
    return to - from
  }

  clear(): void {
    if (this.#regions.length === 0) return
    this.#regions = []
    this.#changed()
  }

  /** Calls back after each change of the map; returns the way to stop that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Index of the first region that begins above `address`. */
  #indexAfter(address: number): number {
    let low = 0
    let high = this.#regions.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#regions[middle]!.base <= address) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The region that holds `address`, or undefined. */
  region(address: number): Region | undefined {
    const last = this.#last
    if (last && address >= last.base && address - last.base < last.size) return last
    let low = 0
    let high = this.#regions.length - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const region = this.#regions[middle]!
      if (address < region.base) high = middle - 1
      else if (address - region.base >= region.size) low = middle + 1
      else return (this.#last = region)
    }
    return undefined
  }

  /** The region that holds [address, address + len) in one piece; PeerFault when there is none. */
  contiguous(address: number, len: number, writable: boolean): Region {
    const region = this.region(address)
    if (!region || address - region.base + len > region.bytes.length)
      throw new PeerFault(`${len} bytes at ${hex(address)} are not guest memory`)
    if (writable && !region.writable) throw new PeerFault(`guest memory at ${hex(address)} is read-only`)
    return region
  }

  /**
   * Appends [address, address + len) to `list`, in as many segments as it takes; returns the bytes appended, fewer than
   * `len` only where the list is full. PeerFault when any byte of it is not guest memory, or is read-only and must not
   * be.
   */
  append(list: Iovec, address: number, len: number, writable: boolean): number {
    let done = 0
    while (done < len) {
      if (list.full) return done
      const region = this.region(address + done)
      if (!region) throw new PeerFault(`${len} bytes at ${hex(address)} are not guest memory`)
      if (writable && !region.writable) throw new PeerFault(`guest memory at ${hex(address)} is read-only`)
      const offset = address + done - region.base
      const part = Math.min(len - done, region.bytes.length - offset)
      list.push(region.bytes, offset, part, region.address === 0 ? 0 : region.address + offset)
      done += part
    }
    return done
  }

  #changed(): void {
    this.generation++
    this.#last = undefined
    for (const listener of this.#listeners) listener()
  }
}

/** "0x1f000", for messages. */
export function hex(n: number): string {
  return `0x${n.toString(16)}`
}
