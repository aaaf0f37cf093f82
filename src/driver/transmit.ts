/**
 * Guest → host, in the guest: reads from a chardev straight into buffers of the device and puts them on the transmitq.
 *
 * The chardev is asked only while there is a free buffer and the host listens; otherwise what programs write stays
 * with them. One read is one chain, however many buffers it fills.
 */

import type { Chardev } from '../chardev/chardev.ts'
import type { DmaPool } from '../mem/dma-pool.ts'
import type { Iovec } from '../mem/iovec.ts'
import { NO_HEAD, type DriverQueue, type Segment, type Used } from '../ring/driver-queue.ts'
import { Buffers } from './buffers.ts'
import { Patience } from './patience.ts'
import type { DriverPortCounters, QueueOwner } from './port-settings.ts'
import { ENTRY_COST, LOOKS_COST, type Waiting } from './turn.ts'

/** Bytes that the device hears of together: it works on them while the next are copied. */
const PUBLISH_LEN = 64 << 10
/**
 * Writes this long that follow each other closely are made available together, half of the buffers at most: to be woken
 * for each costs the device, and us, more than to move them. The first are not held back, and none for longer than so
 * many looks of somebody who comes by all the time.
 */
const HOLD_FROM = 32 << 10
const HOLD_AFTER = 2
const HOLD_LOOKS = 16
const NONE = -1
/** Buffers of one chain. */
export const TRANSMIT_CHAIN_MAX = 8

export class Transmitter implements Waiting {
  waits = false
  readonly queue: DriverQueue
  chardev: Chardev | undefined
  counters: DriverPortCounters
  readonly #owner: QueueOwner
  readonly #len: number
  readonly #count: number
  readonly #buffers: Buffers
  /** Numbers of free buffers, the next to be filled last. */
  readonly #free: Uint16Array
  #freeCount = 0
  /** First buffer of the chain in flight at each head, and the one after each buffer: NONE after the last. */
  readonly #firstOf: Int16Array
  readonly #nextOf: Int16Array
  readonly #segments: Segment[] = []
  readonly #used: Used = { head: 0, len: 0 }
  readonly #patience: Patience
  /** Buffers to lend for one read: follows what was of use of late. */
  #want = TRANSMIT_CHAIN_MAX
  #open = false
  /** All buffers are with the device, and it has been asked to say when one is back. */
  #stalled = false
  /** Somebody comes by again and again (`poll`), and says so when he does not any more (`rest`). */
  #watched = false
  /** Bytes that are held back, and may be; looks since the last of them; long writes that followed each other. */
  #held = 0
  readonly #holdLen: number
  #looks = 0
  #row = 0

  constructor(
    queue: DriverQueue,
    pool: DmaPool,
    { len, count, patience }: { len: number; count: number; patience: number },
    counters: DriverPortCounters,
    owner: QueueOwner,
  ) {
    this.queue = queue
    this.counters = counters
    this.#len = len
    this.#count = Math.min(count, queue.size)
    this.#holdLen = (this.#count * len) / 2
    this.#patience = new Patience(patience)
    this.#buffers = new Buffers(pool, this.#count, len)
    this.#free = new Uint16Array(this.#count)
    this.#firstOf = new Int16Array(queue.size)
    this.#nextOf = new Int16Array(this.#count)
    this.#owner = owner
  }

  /** Gives the memory back; the device has been reset. */
  release(): void {
    this.#buffers.release()
    this.#freeCount = 0
  }

  /** Whether the host listens. */
  setOpen(open: boolean): void {
    this.#open = open
    this.run()
  }

  /** Chains that the device has not given back. */
  get inFlight(): number {
    return this.queue.inFlight
  }

  /** Nobody may come by for a while: nothing is held back. */
  rest(): void {
    this.#watched = false
    this.#row = 0
    if (this.#held > 0) this.#publish()
  }

  /** Comes by: `run` where it waits for the device, and that has given something back; false otherwise. */
  poll(): boolean {
    this.#watched = true
    if (this.#held > 0 && ++this.#looks > HOLD_LOOKS) {
      this.#row = 0
      this.#publish()
    }
    return this.transmitted()
  }

  /** The same after an interrupt. */
  transmitted(): boolean {
    try {
      if (this.waits || !this.#stalled || !this.queue.hasUsed()) return false
    } catch (error) {
      this.#owner.fault(this.queue, error)
      return true
    }
    this.run()
    return true
  }

  /** Moves what the chardev has, as far as there are buffers. */
  run(): void {
    const { queue, chardev } = this
    const { turn } = this.#owner
    if (turn.over) {
      chardev?.setReading(false)
      return turn.wait(this)
    }
    try {
      this.#stalled = false
      queue.disableInterrupts()
      this.#reclaim()
      if (!chardev || !this.#open) {
        chardev?.setReading(false)
        return
      }
      let moved = 0
      let published = 0
      while (!turn.over) {
        if (!this.#haveBuffer()) {
          // The device is asked now: it may give one back before it hears that we wait.
          this.#publish()
          published = moved
          // Half of them back is soon enough: the device has the other half to go on with.
          if (this.#wait() || queue.enableInterrupts((queue.inFlight - 1) >> 1)) {
            this.#reclaim()
            continue
          }
          this.counters.transmitStalls++
          this.#stalled = true
          chardev.setReading(false)
          return
        }
        const bytes = chardev.readv(this.#lend())
        if (bytes <= 0) {
          if (bytes === 0) chardev.setReading(true)
          if (moved > 0 && !this.#hold(moved)) this.#publish()
          return
        }
        this.#send(bytes)
        moved += bytes
        turn.spend(bytes + ENTRY_COST)
        const due = !this.#watched && moved - published >= PUBLISH_LEN
        if (due || queue.staged * 2 >= this.#count) {
          this.#publish()
          published = moved
        }
      }
      this.#publish()
      chardev.setReading(false)
      turn.wait(this)
    } catch (error) {
      this.#owner.fault(queue, error)
    }
  }

  #wait(): boolean {
    const came = this.#patience.wait(this.queue)
    this.#owner.turn.spend(this.#patience.rounds * LOOKS_COST)
    return came
  }

  #haveBuffer(): boolean {
    if (this.queue.free === 0) return false
    if (this.#freeCount > 0) return true
    if (this.#buffers.count >= this.#count) return false
    this.#free[this.#freeCount++] = this.#buffers.make()
    return true
  }

  /** Free buffers, as many as may be one chain; `#send` takes them in the same order. */
  #lend(): Iovec {
    const { list } = this.#owner
    list.clear()
    const most = Math.min(this.#want, this.#freeCount, this.queue.free)
    for (let i = 1; i <= most; i++) this.#buffers.append(list, this.#free[this.#freeCount - i]!, 0, this.#len)
    return list
  }

  #send(bytes: number): void {
    const first = this.#free[--this.#freeCount]!
    const address = this.#buffers.address(first)
    this.#nextOf[first] = NONE
    const head = bytes <= this.#len ? this.queue.addOne(address, bytes, false) : this.#addMany(address, first, bytes)
    if (head === NO_HEAD) throw new RangeError('the transmitq is smaller than its buffers')
    this.#firstOf[head] = first
    this.counters.sentBytes += bytes
    // What is lent has to be listed: for small writes no more than one.
    if (bytes > this.#want * (this.#len >> 1)) this.#want = Math.min(TRANSMIT_CHAIN_MAX, this.#want * 2)
    else if (bytes <= this.#want * (this.#len >> 2)) this.#want = Math.max(1, this.#want >> 1)
  }

  #addMany(address: number, first: number, bytes: number): number {
    const segments = this.#segments
    segments.length = 0
    segments.push({ address, len: this.#len })
    let last = first
    for (let left = bytes - this.#len; left > 0; left -= this.#len) {
      const buffer = this.#free[--this.#freeCount]!
      segments.push({ address: this.#buffers.address(buffer), len: Math.min(left, this.#len) })
      this.#nextOf[last] = buffer
      this.#nextOf[buffer] = NONE
      last = buffer
    }
    return this.queue.add(segments, NO_SEGMENTS)
  }

  #reclaim(): void {
    // As many as are in flight at most: nothing is made available in between.
    while (this.queue.takeUsed(this.#used))
      for (let buffer = this.#firstOf[this.#used.head]!; buffer !== NONE; buffer = this.#nextOf[buffer]!)
        this.#free[this.#freeCount++] = buffer
  }

  /** Whether what was moved waits for more that will follow. */
  #hold(moved: number): boolean {
    this.#row = moved < HOLD_FROM ? 0 : this.#row + 1
    if (!this.#watched || this.#row <= HOLD_AFTER || this.#held + moved >= this.#holdLen) return false
    this.#held += moved
    this.#looks = 0
    return true
  }

  #publish(): void {
    this.#held = 0
    if (this.queue.publish()) this.#owner.notify(this.queue)
  }
}

const NO_SEGMENTS: readonly Segment[] = []
