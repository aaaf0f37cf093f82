/**
 * The device's end of a split virtqueue: gather what the driver made available, move the bytes, complete.
 *
 * Nothing is taken from the ring until its bytes have moved: `gather` only looks, `complete` consumes and stages used
 * entries, `flush` publishes them all with one index store and says whether the driver wants an interrupt. A chain that
 * was moved in part stays first in the ring, with an offset. PeerFault from any of them means that the queue is broken.
 * While somebody looks, `disableNotify`; afterwards `enableNotify`, and again from the start where that says true.
 */

import { PeerFault } from '../errors.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'
import { VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_USED_F_NO_NOTIFY } from '../spec/split.ts'
import { BATCH_MAX, type Batch } from './batch.ts'
import { walkChain, type Direction } from './chain.ts'
import { needEvent } from './event-idx.ts'
import { QueuePosition, type QueueNotes } from './position.ts'
import { SplitRing, type RingAddresses } from './split-ring.ts'

/** Descriptors that one batch looks at, and one chain more: those without a wanted byte take no room in its list. */
const LOOKED_MAX = 8192
/** Bytes that one call may be asked to move: a chain can have 4 GiB, and a file takes all of it. */
const BATCH_LEN_MAX = 4 << 20

export interface QueueFeatures {
  eventIdx: boolean
  indirect: boolean
}

export class DeviceQueue {
  readonly index: number
  readonly #position: QueuePosition
  readonly #onArmed: ((queue: number) => void) | undefined
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
  /** The device must not touch memory now. */
  #held = false
  /** The memory map that the ring was found in. */
  #generation = -1
  #cameBack = false
  /** Taken over, and the ring not seen since: what is published is known only from there, or the position is too. */
  #unpublished: 'none' | 'some' | 'unknown' = 'none'
  /** Chains consumed since the device was made; a count for people. */
  consumed = 0
  /** Most chains that were available at once since the queue was enabled: so many the driver has at least. */
  peak = 0

  /** `onArmed`: the driver was asked to notify of the next chain. */
  constructor(index: number, notes?: QueueNotes, onArmed?: (queue: number) => void) {
    this.index = index
    this.#onArmed = onArmed
    this.#position = new QueuePosition(index, notes)
  }

  get enabled(): boolean {
    return this.#enabled
  }

  /** Whether the ring's memory is there. A queue that is enabled but not bound moves nothing. */
  get bound(): boolean {
    return this.#live !== undefined
  }

  /** The ring where it is now: looked up again after a change of the memory map. */
  get #live(): SplitRing | undefined {
    const memory = this.#memory
    if (memory === undefined || memory.generation === this.#generation) return this.#ring
    return this.#rebind(memory)
  }

  /** Starts the queue at index 0; PeerFault when its addresses or its size cannot be right. */
  enable(memory: GuestMemory, size: number, at: RingAddresses, features: QueueFeatures): void {
    this.disable()
    this.#ring = new SplitRing(memory, size, at)
    this.#position.store(0, 0)
    this.#setUp(memory, size, at, features)
    this.#generation = memory.generation
  }

  #setUp(memory: GuestMemory, size: number, at: RingAddresses, features: QueueFeatures): void {
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
    this.#stop()
    this.#setUp(memory, size, at, features)
    const left = this.#position.left()
    this.#idx = left?.idx ?? 0
    this.#offset = left?.offset ?? 0
    this.#unpublished = left ? 'some' : 'unknown'
    this.#rebind(memory)
  }

  /** Back to the state before `enable` (§2.6.1.1.1). */
  disable(): void {
    this.#position.end()
    this.#stop()
  }

  #stop(): void {
    this.#unpublished = 'none'
    this.#enabled = false
    this.#ring = undefined
    this.#memory = undefined
    this.#idx = 0
    this.#publishedIdx = 0
    this.#judgedIdx = 0
    this.#offset = 0
    this.#notifyDisabled = false
    this.#broken = false
    this.#held = false
    this.#cameBack = false
    this.#generation = -1
    this.peak = 0
  }

  /** After a PeerFault: nothing moves any more until the queue is enabled anew. */
  break(): void {
    this.#broken = true
    this.#ring = undefined
  }

  /** Keeps away from the ring, or goes back to it: the right to touch memory is gone, or there again. */
  hold(on: boolean): void {
    this.#held = on
    this.#generation = -1
  }

  /** True once, when the ring is there again after it was not. */
  cameBack(): boolean {
    const back = this.#live !== undefined && this.#cameBack
    if (back) this.#cameBack = false
    return back
  }

  #rebind(memory: GuestMemory): SplitRing | undefined {
    this.#generation = memory.generation
    const before = this.#ring
    this.#ring = undefined
    if (this.#broken || this.#held) return undefined
    try {
      this.#ring = new SplitRing(memory, this.#size, this.#at)
      if (this.#unpublished !== 'none') this.#findPublished(this.#ring)
      if (!before) this.#cameBack = true
    } catch {
      // VMMs take memory away and give it back while they change their map: no fault of the driver.
    }
    return this.#ring
  }

  /**
   * Looks at available chains, up to `limit` bytes or a batch of them; returns the bytes in `batch.list`. The list may
   * be empty although `batch.count` is not: chains without any wanted byte have to be completed all the same. Of a very
   * long chain it may be a beginning.
   */
  gather(batch: Batch, direction: Direction, limit: number, chains: number = BATCH_MAX): number {
    const list = batch.list
    list.clear()
    batch.count = 0
    batch.direction = direction
    const ring = this.#live
    const memory = this.#memory
    if (!ring || !memory) return 0
    const available = this.#available(ring)
    const most = Math.min(available, chains, BATCH_MAX)
    let count = 0
    while (count < most && list.total < limit && !list.full && list.looked < LOOKED_MAX) {
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
    if (list.total > BATCH_LEN_MAX) list.cut(BATCH_LEN_MAX)
    list.receipts = this.#position.receipts
    list.queue = this.#position.cell
    return list.total
  }

  /**
   * Consumes the first `bytes` bytes of a batch: what the device has read is used with len 0 (nothing was written),
   * what it has written with the bytes written. Call once per gather.
   */
  complete(batch: Batch, bytes: number): void {
    const ring = this.#live
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
    this.#position.store(this.#idx, left)
  }

  /** Publishes the used entries; true when the driver wants an interrupt for them (§2.7.7.2). */
  flush(): boolean {
    this.publish()
    return this.judge()
  }

  /** Publishes the used entries; whether the driver wants an interrupt for them is for `judge` to say, soon. */
  publish(): void {
    const ring = this.#live
    if (!ring || this.#idx === this.#publishedIdx) return
    this.#publishedIdx = this.#idx
    ring.publishUsedIdx(this.#idx)
  }

  /** Whether the driver wants an interrupt for what was published since it was last asked, and has not come by itself. */
  judge(): boolean {
    const ring = this.#live
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

  /** Index of the first chain that is not consumed. */
  get next(): number {
    return this.#idx
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
    const ring = this.#live
    if (!ring || !this.#eventIdx) return false
    const end = this.#publishedIdx
    if (((end - idx) & 0xffff) > ((end - this.#judgedIdx) & 0xffff)) return false
    if (((end - ring.usedEvent()) & 0xffff) > ((end - idx) & 0xffff)) return false
    this.#judgedIdx = idx
    return true
  }

  /** Asks the driver not to notify: we are looking anyway (§2.7.10). With EVENT_IDX a stale avail_event does that. */
  disableNotify(): void {
    const ring = this.#live
    if (this.#notifyDisabled || !ring) return
    this.#notifyDisabled = true
    if (!this.#eventIdx) ring.setUsedFlags(VIRTQ_USED_F_NO_NOTIFY)
  }

  /**
   * Asks to be notified of the next chain; true when there is one already, and no notification may come for it. With
   * EVENT_IDX it can ask for the `nth` next instead: true when that many are there.
   */
  enableNotify(nth: number = 1): boolean {
    const ring = this.#live
    if (!ring) return false
    this.#notifyDisabled = false
    if (this.#eventIdx) ring.setAvailEvent((this.#idx + nth - 1) & 0xffff)
    else ring.setUsedFlags(0)
    const there = this.#available(ring) >= (this.#eventIdx ? nth : 1)
    // Who waits for several has a timer of its own.
    if (!there && nth === 1) this.#onArmed?.(this.index)
    return there
  }

  /** Available chains not yet consumed. */
  available(): number {
    const ring = this.#live
    return ring ? this.#available(ring) : 0
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
    const known = this.#unpublished === 'some'
    this.#unpublished = 'none'
    this.#publishedIdx = this.#judgedIdx = ring.usedIdx()
    if (known && ((this.#idx - this.#publishedIdx) & 0xffff) <= ring.size) return
    // Not what we left: the guest has written there, or it was on its way to another ring. It gets its own index.
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
