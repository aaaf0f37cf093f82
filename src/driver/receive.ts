/**
 * Host → guest, in the guest: keeps the receiveq full of buffers and hands what comes in them to a chardev.
 *
 * What the chardev does not take now stays in its buffer, and the buffer stays away from the device: the host feels it.
 * The buffers belong to the queue, not to the port: exposed buffers cannot be taken back (§3.3.1), so a port that is
 * removed leaves them there for the next one with its number.
 */

import { GONE, type Chardev } from '../chardev/chardev.ts'
import type { DmaPool } from '../mem/dma-pool.ts'
import { IOVEC_MAX, type Iovec } from '../mem/iovec.ts'
import { NO_HEAD, type DriverQueue, type Used } from '../ring/driver-queue.ts'
import { Buffers } from './buffers.ts'
import { Patience } from './patience.ts'
import type { DriverPortCounters, QueueOwner } from './port-settings.ts'
import { ENTRY_COST, LOOKS_COST, type Waiting } from './turn.ts'

/** Bytes of one run after which more are waited for: after a lone message nobody knows when the next one comes. */
const BULK_LEN = 8 << 10
/**
 * Part of the buffers that goes back to the device together: more of them while others wait for a chardev, which has
 * enough to do then, and somebody comes by all the time: for each part the device has to be woken.
 */
const PUBLISH_PART = 1 / 4
const PUBLISH_PART_FULL = 2 / 3
/** Bytes that are shown at a time to a chardev that comes by all the time: no program reads more of them at once. */
const LEND_LEN = 128 << 10

export class Receiver implements Waiting {
  waits = false
  readonly queue: DriverQueue
  chardev: Chardev | undefined
  /** Where it counts; another one for each port that has the queue. */
  counters: DriverPortCounters
  readonly #owner: QueueOwner
  readonly #buffers: Buffers
  readonly #most: number
  /** Number of a buffer by head. */
  readonly #bufferOf: Uint16Array
  /**
   * Those that wait for the chardev, oldest first from `#waitingAt` on, and the bytes in them: rings of the queue's
   * size.
   */
  readonly #waiting: Uint16Array
  readonly #waitingLen: Float64Array
  #waitingAt = 0
  #waitingCount = 0
  readonly #used: Used = { head: 0, len: 0 }
  readonly #patience: Patience
  /** Bytes of the first waiting buffer that the chardev has. */
  #offset = 0
  #open = false
  /** Somebody comes by again and again (`poll`), and says so when he does not any more (`rest`). */
  #watched = false

  constructor(
    queue: DriverQueue,
    pool: DmaPool,
    { len, most, patience }: { len: number; most: number; patience: number },
    counters: DriverPortCounters,
    owner: QueueOwner,
  ) {
    this.queue = queue
    this.counters = counters
    this.#most = most
    this.#buffers = new Buffers(pool, queue.size, len)
    this.#patience = new Patience(patience)
    this.#owner = owner
    this.#bufferOf = new Uint16Array(queue.size)
    this.#waiting = new Uint16Array(queue.size)
    this.#waitingLen = new Float64Array(queue.size)
  }

  /** Sees to it that there are `count` buffers, as many as the queue holds at most. */
  fill(count: number): void {
    while (this.#buffers.count < Math.min(count, this.queue.size)) this.#post(this.#buffers.make())
    this.#publish()
  }

  /** Gives the memory back; the device has been reset. */
  release(): void {
    this.#buffers.release()
  }

  /** Whether somebody reads; what comes for a closed port is dropped and counted. */
  setOpen(open: boolean): void {
    this.#open = open
    this.run()
  }

  /** Nobody may come by for a while: nothing is held back. */
  rest(): void {
    this.#watched = false
    this.#publish()
  }

  /** Comes by: `run` where the device has used something since, and nothing otherwise; false then. */
  poll(): boolean {
    this.#watched = true
    return this.received()
  }

  /** The same after an interrupt. */
  received(): boolean {
    try {
      // While the chardev is full, what comes is left where it is; and until its turn comes.
      if (this.waits || this.#waitingCount > 0 || !this.queue.hasUsed()) return false
    } catch (error) {
      this.#owner.fault(this.queue, error)
      return true
    }
    this.run()
    return true
  }

  /** Takes what the device has used, and hands it on as far as the chardev takes it. */
  run(): void {
    const { queue } = this
    const { turn } = this.#owner
    if (turn.over) return turn.wait(this)
    try {
      const before = this.#moved
      let charged = before
      let full = false
      do {
        queue.disableInterrupts()
        do {
          // All of it first: a chardev with one taker at a time gives him as much as there is.
          while (this.#waitingCount < IOVEC_MAX && queue.takeUsed(this.#used)) {
            const at = (this.#waitingAt + this.#waitingCount++) & (queue.size - 1)
            this.#waiting[at] = this.#bufferOf[this.#used.head]!
            this.#waitingLen[at] = this.#used.len
            // Entries, whatever is in them: a device may fill one with nothing as soon as it has it.
            turn.spend(ENTRY_COST)
          }
          full = !this.#deliver()
          if (!full || (this.#watched && this.#moved - before >= BULK_LEN)) this.#growIfStarved()
          const part = full && this.#watched ? PUBLISH_PART_FULL : PUBLISH_PART
          if (queue.staged >= this.#buffers.count * part) this.#publish()
          turn.spend(this.#moved - charged)
          charged = this.#moved
          if (turn.over) {
            this.#publish()
            return turn.wait(this)
          }
        } while (!full && (queue.hasUsed() || (this.#moved - before >= BULK_LEN && this.#wait())))
        // While the chardev is full no interrupt is of use: `writable` comes back here.
      } while (!full && queue.enableInterrupts())
      if (full) this.counters.receiveStalls++
      if (!full || !this.#watched) this.#publish()
    } catch (error) {
      this.#owner.fault(queue, error)
    }
  }

  /** The device has used all that it had: with more of them it could have gone on. */
  #growIfStarved(): void {
    const { queue } = this
    if (!this.#open || queue.inFlight > queue.staged || this.#buffers.count >= this.#most) return
    this.fill(Math.min(this.#most, this.#buffers.count * 2))
  }

  get #moved(): number {
    return this.counters.receivedBytes + this.counters.receivedDropped
  }

  #wait(): boolean {
    this.#publish()
    const came = this.#patience.wait(this.queue)
    this.#owner.turn.spend(this.#patience.rounds * LOOKS_COST)
    return came
  }

  /** Hands over what waits; true when nothing waits any more. */
  #deliver(): boolean {
    while (this.#waitingCount > 0) {
      let total = 0
      let taken = Infinity
      if (this.#open && this.chardev) {
        total = this.#lend(this.#owner.list)
        taken = total === 0 ? 0 : this.chardev.writev(this.#owner.list)
        if (taken === GONE) taken = Infinity
        else this.counters.receivedBytes += taken
      }
      this.#take(taken)
      if (taken < total) break
    }
    return this.#waitingCount === 0
  }

  /** So many of the bytes that wait have been taken; Infinity: all of them are dropped. */
  #take(taken: number): void {
    const dropping = taken === Infinity
    while (this.#waitingCount > 0) {
      const left = this.#waitingLen[this.#waitingAt]! - this.#offset
      if (taken < left) {
        this.#offset += taken
        break
      }
      taken -= left
      if (dropping) this.counters.receivedDropped += left
      this.#offset = 0
      this.#post(this.#waiting[this.#waitingAt]!)
      this.#waitingAt = (this.#waitingAt + 1) & (this.queue.size - 1)
      this.#waitingCount--
    }
  }

  /** The first of the bytes that wait, as a list; returns how many. */
  #lend(list: Iovec): number {
    list.clear()
    let skip = this.#offset
    const most = this.#watched ? LEND_LEN : Infinity
    for (let i = 0; i < this.#waitingCount && list.total < most; i++) {
      const at = (this.#waitingAt + i) & (this.queue.size - 1)
      const len = this.#waitingLen[at]!
      if (len > skip) this.#buffers.append(list, this.#waiting[at]!, skip, len)
      skip = 0
    }
    return list.total
  }

  #post(buffer: number): void {
    const head = this.queue.addOne(this.#buffers.address(buffer), this.#buffers.len, true)
    // A broken queue takes nothing; the buffer is given back with the others.
    if (head !== NO_HEAD) this.#bufferOf[head] = buffer
  }

  #publish(): void {
    if (this.queue.publish()) this.#owner.notify(this.queue)
  }
}
