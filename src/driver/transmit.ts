/**
 * Guest → host, in the guest: reads from a chardev straight into buffers of the device and puts them on the transmitq.
 *
 * The chardev is asked only while there is a free buffer and the host listens; otherwise what programs write stays
 * with them. One read is one chain, however many buffers it fills.
 */

import type { Chardev } from '../chardev/chardev.ts'
import type { DmaBuffer, DmaPool } from '../mem/dma-pool.ts'
import type { Iovec } from '../mem/iovec.ts'
import { NO_HEAD, type DriverQueue, type Segment, type Used } from '../ring/driver-queue.ts'
import type { DriverPortCounters, QueueOwner } from './port-settings.ts'

/** Bytes a port may move before others have their turn. */
const TURN_LEN = 4 << 20
/** Buffers of one chain. */
export const TRANSMIT_CHAIN_MAX = 8

export class Transmitter {
  readonly queue: DriverQueue
  chardev: Chardev | undefined
  counters: DriverPortCounters
  readonly #owner: QueueOwner
  readonly #pool: DmaPool
  readonly #len: number
  readonly #count: number
  readonly #buffers: DmaBuffer[] = []
  readonly #free: number[] = []
  /** Buffers of the chain in flight at each head. */
  readonly #buffersOf: number[][] = []
  readonly #segments: Segment[] = []
  readonly #used: Used = { head: 0, len: 0 }
  #open = false
  #deferred = false
  /** All buffers are with the device, and it has been asked to say when one is back. */
  #stalled = false

  constructor(
    queue: DriverQueue,
    pool: DmaPool,
    { len, count }: { len: number; count: number },
    counters: DriverPortCounters,
    owner: QueueOwner,
  ) {
    this.queue = queue
    this.counters = counters
    this.#pool = pool
    this.#len = len
    this.#count = Math.min(count, queue.size)
    this.#owner = owner
  }

  /** Gives the memory back; the device has been reset. */
  release(): void {
    for (const buffer of this.#buffers) this.#pool.free(buffer)
    this.#buffers.length = this.#free.length = 0
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

  /** The same where it waits for the device, and that has given something back; false otherwise. */
  poll(): boolean {
    try {
      if (!this.#stalled || !this.queue.hasUsed()) return false
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
    try {
      this.#stalled = false
      queue.disableInterrupts()
      this.#reclaim()
      if (!chardev || !this.#open) {
        chardev?.setReading(false)
        return
      }
      let budget = TURN_LEN
      while (budget > 0) {
        if (!this.#haveBuffer()) {
          // The device is asked now: it may give one back before it hears that we wait.
          this.#publish()
          // Half of them back is soon enough: the device has the other half to go on with.
          if (queue.enableInterrupts(queue.inFlight >> 1)) {
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
          break
        }
        this.#send(bytes)
        budget -= bytes
      }
      this.#publish()
      if (budget <= 0) this.#defer(chardev)
    } catch (error) {
      this.#owner.fault(queue, error)
    }
  }

  #haveBuffer(): boolean {
    if (this.#free.length > 0 && this.queue.free > 0) return true
    if (this.#buffers.length >= this.#count || this.queue.free === 0) return false
    this.#free.push(this.#buffers.push(this.#pool.allocate(this.#len)) - 1)
    return true
  }

  /** The free buffers, as many as may be one chain; `#send` takes them in the same order. */
  #lend(): Iovec {
    const { list } = this.#owner
    list.clear()
    const most = Math.min(this.#free.length, this.queue.free, TRANSMIT_CHAIN_MAX)
    for (let i = 0; i < most; i++)
      this.#pool.memory.append(list, this.#buffers[this.#free.at(-1 - i)!]!.address, this.#len, true)
    return list
  }

  #send(bytes: number): void {
    const buffers: number[] = []
    this.#segments.length = 0
    for (let left = bytes; left > 0; left -= this.#len) {
      const buffer = this.#free.pop()!
      buffers.push(buffer)
      this.#segments.push({ address: this.#buffers[buffer]!.address, len: Math.min(left, this.#len) })
    }
    const head = this.queue.add(this.#segments, [])
    if (head === NO_HEAD) throw new RangeError('the transmitq is smaller than its buffers')
    this.#buffersOf[head] = buffers
    this.counters.sentBytes += bytes
  }

  #reclaim(): void {
    while (this.queue.takeUsed(this.#used)) this.#free.push(...this.#buffersOf[this.#used.head]!)
  }

  #publish(): void {
    if (this.queue.publish()) this.#owner.notify(this.queue)
  }

  #defer(chardev: Chardev): void {
    chardev.setReading(false)
    if (this.#deferred) return
    this.#deferred = true
    this.#owner.defer(() => {
      this.#deferred = false
      this.run()
    })
  }
}
