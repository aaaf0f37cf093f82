/**
 * One queue of the guest's driver. Every buffer lies in more than one region of guest memory, so that a region which a
 * successor has not, or has elsewhere, shows in the bytes.
 */

import type { Region } from '../src/mem/guest-memory.ts'
import { PAGE_LEN, RawQueue, RING_LEN, type RawSegment } from '../test/support/raw-queue.ts'

/** Queues that there is memory for. */
export const RAM_QUEUES = 16
const PAGES = 32 * PAGE_LEN
const PAGES_AT = RAM_QUEUES * RING_LEN
/** Bytes of a receive buffer in each of its two regions. */
const RECEIVE_PART = 1024
/** Descriptors that one buffer takes at most. */
const SEGMENTS = 3
const fence = new Int32Array(1)

export class GuestQueue {
  readonly index: number
  readonly vector: number
  readonly raw: RawQueue
  /** Called with the bytes of a receive buffer. */
  onBytes: (bytes: Buffer) => void = () => {}
  /** Buffers that were sent and have not come back. */
  get outstanding(): number {
    return this.#out.size
  }
  /** Whether the third part of what is sent lies in memory that the VMM lends read-only. */
  useRom = true
  readonly #regions: Readonly<Record<'low' | 'high' | 'rom', Region>>
  readonly #eventIdx: boolean
  /** Lengths by head: of buffers to write into, or 0 for those to read. */
  readonly #out = new Map<number, number>()
  readonly #free: number[] = []
  #notified = 0

  constructor(
    index: number,
    size: number,
    regions: Readonly<Record<'low' | 'high' | 'rom', Region>>,
    eventIdx: boolean,
    notify: (index: number) => void,
  ) {
    this.index = index
    this.vector = index === 2 || index === 3 ? 1 : 2 + ((index >> 1) % 4)
    this.#regions = regions
    this.#eventIdx = eventIdx
    const ring = part(regions.low, index * RING_LEN, RING_LEN)
    ring.bytes.fill(0)
    this.raw = new RawQueue(index, size, ring, part(regions.low, PAGES_AT + index * PAGES, PAGES), notify)
    for (let slot = 0; (slot + 1) * SEGMENTS <= size; slot++) this.#free.push(slot)
  }

  /** Gives the device all buffers to fill; for receiveqs. */
  post(): void {
    for (const slot of this.#free.splice(0)) this.#post(slot)
    this.#kick()
  }

  get room(): boolean {
    return this.#free.length > 0
  }

  /** One buffer for the device to read; at most a page. */
  send(bytes: Uint8Array): void {
    const slot = this.#free.shift()
    if (slot === undefined) throw new Error(`queue ${this.index} is full`)
    const names = this.useRom ? (['low', 'high', 'rom'] as const) : (['low', 'high'] as const)
    const segments: RawSegment[] = []
    let at = 0
    for (const [i, name] of names.entries()) {
      const len = i === names.length - 1 ? bytes.length - at : Math.floor(bytes.length / names.length)
      if (len === 0) continue
      const page = this.#page(name, slot)
      page.bytes.set(bytes.subarray(at, at + len))
      segments.push({ address: page.base, len })
      at += len
    }
    this.#lay(slot, segments, 0)
    this.#kick()
  }

  /** Takes what the device has used, and asks for an interrupt for the next; looks again after asking. */
  interrupted(): void {
    do {
      for (const { id, len } of this.raw.takeUsed()) {
        const most = this.#out.get(id)
        if (most === undefined)
          throw new Error(`queue ${this.index}: buffer ${id} was used twice, or was never available`)
        if (len > most) throw new Error(`queue ${this.index}: ${len} bytes in a buffer of ${most}`)
        this.#out.delete(id)
        const slot = id / SEGMENTS
        if (most === 0) this.#free.push(slot)
        else {
          const parts = (['low', 'high'] as const).map((name) => this.#page(name, slot).bytes.subarray(0, RECEIVE_PART))
          this.onBytes(Buffer.concat(parts).subarray(0, len))
          this.#post(slot)
        }
      }
      if (this.#eventIdx) this.raw.setUsedEvent(this.raw.seenUsed)
      Atomics.add(fence, 0, 1)
    } while (this.raw.usedIdx !== this.raw.seenUsed)
    this.#kick()
  }

  /** Takes back what the device has not used, as Linux does when a port is removed: the index goes back with it. */
  detach(): void {
    this.raw.setAvailIdx(this.raw.availIdx - this.#out.size)
    this.#notified = this.raw.availIdx
    for (const id of this.#out.keys()) this.#free.push(id / SEGMENTS)
    this.#out.clear()
  }

  #post(slot: number): void {
    const segments = (['low', 'high'] as const).map((name) => {
      const page = this.#page(name, slot)
      page.bytes.fill(0xee, 0, RECEIVE_PART)
      return { address: page.base, len: RECEIVE_PART, write: true }
    })
    this.#lay(slot, segments, 2 * RECEIVE_PART)
  }

  #lay(slot: number, segments: RawSegment[], most: number): void {
    const head = slot * SEGMENTS
    this.raw.next = head
    this.#out.set(head, most)
    this.raw.chain(segments)
  }

  /** Notifies where the device wants that (§2.7.10). */
  #kick(): void {
    const [old, now] = [this.#notified, this.raw.availIdx]
    if (old === now) return
    this.#notified = now
    Atomics.add(fence, 0, 1)
    const wanted = this.#eventIdx
      ? ((now - this.raw.availEvent - 1) & 0xffff) < ((now - old) & 0xffff)
      : (this.raw.usedFlags & 1) === 0
    if (wanted) this.raw.notify()
  }

  #page(name: 'low' | 'high' | 'rom', slot: number): { base: number; bytes: Uint8Array } {
    const at = (name === 'low' ? PAGES_AT : 0) + this.index * (name === 'low' ? PAGES : 128 << 10) + slot * PAGE_LEN
    return part(this.#regions[name], at, PAGE_LEN)
  }
}

function part(region: Region, offset: number, size: number): Region {
  const { base, bytes, address } = region
  return {
    base: base + offset,
    size,
    bytes: bytes.subarray(offset, offset + size),
    address: address + offset,
    writable: true,
  }
}
