/**
 * The device's end of a split virtqueue: gather what the driver made available, move the bytes, complete.
 *
 * Nothing is taken from the ring until its bytes have moved: `gather` only looks, `complete` consumes and stages used
 * entries, `flush` publishes them all with one index store and says whether the driver wants an interrupt. A chain that
 * was moved in part stays first in the ring, with an offset. PeerFault from any of them means that the queue is broken.
 *
 *     do {
 *       queue.disableNotify()
 *       while (queue.gather(batch, 'readable', limit) > 0) queue.complete(batch, move(batch.list))
 *       if (queue.flush()) interrupt()
 *     } while (queue.enableNotify())      // true: more slipped in while we were arming
 */

import { PeerFault } from '../errors.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'
import { Iovec } from '../mem/iovec.ts'
import type { Receipts } from '../mem/receipts.ts'
import { VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_USED_F_NO_NOTIFY } from '../spec/split.ts'
import { walkChain, type Direction } from './chain.ts'
import { needEvent } from './event-idx.ts'
import { SplitRing, type RingAddresses } from './split-ring.ts'

/** Chains in one batch. */
const BATCH_MAX = 256

/** What one `gather` found; one per device is enough, batches do not outlive a turn. */
export class Batch {
  readonly list: Iovec = new Iovec()
  readonly heads: Uint16Array = new Uint16Array(BATCH_MAX)
  /** Length of the wanted part of chain i, bytes, with what was moved of it before. */
  readonly lens: Float64Array = new Float64Array(BATCH_MAX)
  direction: Direction = 'readable'
  /** Chains. */
  count = 0
}

export interface QueueFeatures {
  eventIdx: boolean
  indirect: boolean
}

/** Where queues note how far they are, for a successor: one cell each, see `DeviceQueue.resume`. */
export interface QueueNotes {
  positions: Float64Array
  receipts: Receipts | undefined
}

/** A position is the index of the first chain not consumed, times this, plus the bytes of it that were moved. */
const POSITION_UNIT = 2 ** 33

export class DeviceQueue {
  readonly index: number
  readonly #positions: Float64Array
  readonly #cell: number
  readonly #receipts: Receipts | undefined
  #memory: GuestMemory | undefined
  #ring: SplitRing | undefined
  #at: RingAddresses = { desc: 0, avail: 0, used: 0 }
  #size = 0
  #enabled = false
  #eventIdx = false
  #indirect = false
  /** Chains consumed so far, modulo 2^16: the next to look at, and our used index, are the same (used in order). */
  #idx = 0
  #publishedIdx = 0
  /** Up to here it is settled whether the driver gets an interrupt. */
  #judgedIdx = 0
  /** Bytes of the first available chain that were moved before. */
  #offset = 0
  #notifyDisabled = false
  #broken = false
  /** Taken over, and the ring not seen since: what is published is known only from there. */
  #unpublished = false
  /** Chains consumed since the device was made; a count for people. */
  consumed = 0
  /** Most chains that were available at once since the queue was enabled: so many the driver has at least. */
  peak = 0

  constructor(index: number, notes?: QueueNotes) {
    this.index = index
    this.#positions = notes?.positions ?? new Float64Array(1)
    this.#cell = notes ? index : 0
    this.#receipts = notes?.receipts
  }

  get enabled(): boolean {
    return this.#enabled
  }

  /** Whether the ring's memory is there. A queue that is enabled but not bound moves nothing. */
  get bound(): boolean {
    return this.#ring !== undefined
  }

  /** Starts the queue at index 0; PeerFault when its addresses or its size cannot be right. */
  enable(memory: GuestMemory, size: number, at: RingAddresses, features: QueueFeatures): void {
    this.disable()
    this.#ring = new SplitRing(memory, size, at)
    this.#memory = memory
    this.#size = size
    this.#at = at
    this.#eventIdx = features.eventIdx
    this.#indirect = features.indirect
    this.#enabled = true
  }

  /**
   * Goes on where another process stopped. Its position is the first entry whose bytes have not moved; used entries
   * before that are written, and perhaps not published yet: `flush` does that.
   */
  resume(memory: GuestMemory, size: number, at: RingAddresses, features: QueueFeatures): void {
    const position = this.#positions[this.#cell]!
    this.disable()
    this.#positions[this.#cell] = position
    this.#memory = memory
    this.#size = size
    this.#at = at
    this.#eventIdx = features.eventIdx
    this.#indirect = features.indirect
    this.#enabled = true
    this.#idx = Math.floor(position / POSITION_UNIT) & 0xffff
    this.#offset = position % POSITION_UNIT
    this.#unpublished = true
    this.rebind()
  }

  /** Consumes `bytes` that were moved before this process took over; returns how many of them there was a chain for. */
  replay(batch: Batch, direction: Direction, bytes: number): number {
    let left = bytes
    while (left > 0) {
      const found = Math.min(left, this.gather(batch, direction, left))
      if (batch.count === 0) break
      this.complete(batch, found)
      left -= found
    }
    return bytes - left
  }

  /** Back to the state before `enable` (§2.6.1.1.1). */
  disable(): void {
    this.#positions[this.#cell] = 0
    this.#unpublished = false
    this.#enabled = false
    this.#ring = undefined
    this.#memory = undefined
    this.#idx = 0
    this.#publishedIdx = 0
    this.#judgedIdx = 0
    this.#offset = 0
    this.#notifyDisabled = false
    this.#broken = false
    this.peak = 0
  }

  /** After a PeerFault: nothing moves any more until the queue is enabled anew. */
  break(): void {
    this.#broken = true
    this.#ring = undefined
  }

  /** Keeps away from the ring until `rebind`: the memory, or the right to touch it, is gone. */
  unbind(): void {
    this.#ring = undefined
  }

  /** Follows a change of the memory map; true when the ring is there again after it was not. */
  rebind(): boolean {
    if (!this.#enabled || !this.#memory || this.#broken) return false
    const was = this.#ring !== undefined
    try {
      this.#ring = new SplitRing(this.#memory, this.#size, this.#at)
      if (this.#unpublished) this.#findPublished(this.#ring)
    } catch {
      // VMMs take memory away and give it back while they change their map: no fault of the driver.
      this.#ring = undefined
    }
    return !was && this.#ring !== undefined
  }

  /**
   * Looks at available chains, up to `limit` bytes or a batch of them; returns the bytes in `batch.list`. The list may
   * be empty although `batch.count` is not: chains without any wanted byte have to be completed all the same.
   */
  gather(batch: Batch, direction: Direction, limit: number, chains: number = BATCH_MAX): number {
    const list = batch.list
    list.clear()
    batch.count = 0
    batch.direction = direction
    const ring = this.#ring
    const memory = this.#memory
    if (!ring || !memory) return 0
    const available = this.#available(ring)
    const most = Math.min(available, chains, BATCH_MAX)
    let count = 0
    while (count < most && list.total < limit && !list.full) {
      const head = ring.availRing(this.#idx + count)
      const segments = list.count
      const total = list.total
      const skip = count === 0 ? this.#offset : 0
      const len = walkChain(ring, memory, head, direction, this.#indirect, list, skip)
      if (count > 0 && list.total - total < len) {
        // It did not fit behind the others: next time, as the first.
        list.count = segments
        list.total = total
        break
      }
      batch.heads[count] = head
      batch.lens[count] = len
      count++
    }
    batch.count = count
    list.receipts = this.#receipts
    list.queue = this.#cell
    return list.total
  }

  /**
   * Consumes the first `bytes` bytes of a batch: what the device has read is used with len 0 (nothing was written),
   * what it has written with the bytes written. Call once per gather.
   */
  complete(batch: Batch, bytes: number): void {
    const ring = this.#ring
    if (!ring) return
    const writable = batch.direction === 'writable'
    let left = bytes + this.#offset
    for (let i = 0; i < batch.count; i++) {
      const len = batch.lens[i]!
      if (writable ? left === 0 && len > 0 : left < len) break
      const part = Math.min(left, len)
      ring.setUsed(this.#idx, batch.heads[i]!, writable ? part : 0)
      this.#idx = (this.#idx + 1) & 0xffff
      this.consumed++
      left -= part
    }
    this.#offset = left
    this.#positions[this.#cell] = this.#idx * POSITION_UNIT + left
  }

  /** Publishes the used entries; true when the driver wants an interrupt for them (§2.7.7.2). */
  flush(): boolean {
    this.publish()
    return this.judge()
  }

  /** Publishes the used entries; whether the driver wants an interrupt for them is for `judge` to say, soon. */
  publish(): void {
    const ring = this.#ring
    if (!ring || this.#idx === this.#publishedIdx) return
    this.#publishedIdx = this.#idx
    ring.publishUsedIdx(this.#idx)
  }

  /** Whether the driver wants an interrupt for what was published since it was last asked, and has not come by itself. */
  judge(): boolean {
    const ring = this.#ring
    const [old, idx] = [this.#judgedIdx, this.#publishedIdx]
    if (!ring || old === idx) return false
    this.#judgedIdx = idx
    if (this.#eventIdx) return needEvent(ring.usedEvent(), idx, old)
    return (ring.availFlags() & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0
  }

  /** Whether something was published that `judge` has not been asked about. */
  get unjudged(): boolean {
    return this.#judgedIdx !== this.#publishedIdx
  }

  /** The index after the last published entry, for `excused`. */
  get published(): number {
    return this.#publishedIdx
  }

  /**
   * Whether the driver has come by itself and taken everything before `idx`, an earlier `published`: the entry that it
   * wants to hear of is a later one (known only with EVENT_IDX). No interrupt is owed for those any more.
   */
  excused(idx: number): boolean {
    const ring = this.#ring
    if (!ring || !this.#eventIdx) return false
    const end = this.#publishedIdx
    if (((end - idx) & 0xffff) > ((end - this.#judgedIdx) & 0xffff)) return false
    if (((end - ring.usedEvent()) & 0xffff) > ((end - idx) & 0xffff)) return false
    this.#judgedIdx = idx
    return true
  }

  /** Asks the driver not to notify: we are looking anyway (§2.7.10). With EVENT_IDX a stale avail_event does that. */
  disableNotify(): void {
    if (this.#notifyDisabled || !this.#ring) return
    this.#notifyDisabled = true
    if (!this.#eventIdx) this.#ring.setUsedFlags(VIRTQ_USED_F_NO_NOTIFY)
  }

  /**
   * Asks to be notified of the next chain; true when there is one already, and no notification may come for it. With
   * EVENT_IDX it can ask for the `nth` next instead: true when that many are there.
   */
  enableNotify(nth: number = 1): boolean {
    const ring = this.#ring
    if (!ring) return false
    this.#notifyDisabled = false
    if (!this.#eventIdx) {
      ring.setUsedFlags(0)
      return this.#available(ring) > 0
    }
    ring.setAvailEvent((this.#idx + nth - 1) & 0xffff)
    return this.#available(ring) >= nth
  }

  /** Available chains not yet consumed. */
  available(): number {
    return this.#ring ? this.#available(this.#ring) : 0
  }

  /** Entries. */
  get size(): number {
    return this.#size
  }

  /** Chains that are consumed, and of which the driver knows nothing yet. */
  get staged(): number {
    return (this.#idx - this.#publishedIdx) & 0xffff
  }

  /** Whether the first available chain was moved in part. */
  get partial(): boolean {
    return this.#offset > 0
  }

  #findPublished(ring: SplitRing): void {
    this.#unpublished = false
    this.#publishedIdx = this.#judgedIdx = ring.usedIdx()
    if (((this.#idx - this.#publishedIdx) & 0xffff) <= ring.size) return
    // Not what we left: the guest has written there. It gets its own index, and what follows from it.
    this.#idx = this.#publishedIdx
    this.#offset = 0
  }

  #available(ring: SplitRing): number {
    const available = (ring.availIdx() - this.#idx) & 0xffff
    if (available > this.peak) this.peak = available
    if (available > ring.size)
      throw new PeerFault(
        `queue ${this.index}: available index is ${available} ahead with ${ring.size} entries (§2.7.6)`,
      )
    return available
  }
}
