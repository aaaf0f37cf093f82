/**
 * Host → guest: fills the buffers of a receiveq from a chardev.
 *
 * What the host sends stays in its socket until the guest has a buffer for it, so a buffer is looked at only when there
 * are bytes, is filled to the brim, and is never given back empty (Linux would read that as end of file).
 */

import type { Chardev } from '../chardev/chardev.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import type { PortCounters } from './counters.ts'
import type { PortOwner } from './port-settings.ts'
import { costOf } from './work.ts'

/** Most room for one readv, and what is published at once: the guest works on one batch while we fill the next. */
const GATHER_LEN = 64 << 10
/** Least: to look at sixteen buffers for the sake of one byte costs more than the byte. */
const GATHER_LEN_MIN = 1024
/**
 * When the guest has run out of buffers it has all of them to read: a notification for each would be one for every
 * 4 KiB. It is asked for one when this part of them is back; the timer is for a guest that has fewer than it once had.
 */
const REFILL_PART = 4
const REFILL_MS = 20

export class Receiver {
  readonly queue: DeviceQueue
  chardev: Chardev | undefined
  readonly #counters: PortCounters
  readonly #owner: PortOwner
  #open = false
  /** Room to look for: follows what came of late. */
  #want = GATHER_LEN_MIN
  #cancelRefill: (() => void) | undefined

  constructor(queue: DeviceQueue, counters: PortCounters, owner: PortOwner) {
    this.queue = queue
    this.#counters = counters
    this.#owner = owner
  }

  /** Whether the guest wants input. */
  get open(): boolean {
    return this.#open
  }

  /** Whether the guest wants input; Linux throws away what comes for a closed port. */
  setOpen(open: boolean): void {
    this.#open = open
    if (open) this.run()
    else this.chardev?.setReading(false)
  }

  /** Moves what the host has sent into the guest's buffers; asks for more only while both are there. */
  run(): void {
    const { queue, chardev } = this
    if (!chardev || !this.#open) return
    const { batch, work } = this.#owner
    if (work.isDeferred(queue.index)) return
    let budget = work.quantum
    try {
      queue.disableNotify()
      while (budget > 0) {
        const room = queue.gather(batch, 'writable', this.#want)
        const { looked } = batch.list
        const chains = batch.count
        if (room === 0) {
          // Buffers without a writable byte go back as they are.
          queue.complete(batch, 0)
          if (chains > 0) budget = work.charge(costOf(looked, chains, 0), budget)
          if (chains > 0 || queue.enableNotify(Math.max(1, Math.floor(queue.peak / REFILL_PART)))) continue
          this.#starve(chardev)
          break
        }
        const bytes = chardev.readv(batch.list)
        budget = work.charge(costOf(looked, chains, bytes), budget)
        if (bytes <= 0) {
          if (bytes === 0) chardev.setReading(true)
          break
        }
        queue.complete(batch, bytes)
        this.#publish()
        this.#counters.hostToGuestBytes += bytes
        if (bytes === room) this.#want = Math.min(GATHER_LEN, this.#want * 4)
        else if (bytes * 4 < this.#want) this.#want = Math.max(GATHER_LEN_MIN, this.#want / 2)
        // A short read has emptied the socket: it says so itself when there is more.
        if (bytes < room) {
          chardev.setReading(true)
          break
        }
      }
      this.#publish()
      if (budget <= 0) this.#defer(chardev)
    } catch (error) {
      chardev.setReading(false)
      this.#owner.fault(queue, error)
    }
  }

  #publish(): void {
    if (!this.queue.flush()) return
    this.#counters.interrupts++
    this.#owner.interrupt(this.queue)
  }

  /** No buffers: the host waits in its socket until the guest makes some available. */
  #starve(chardev: Chardev): void {
    this.#counters.receiveStalls++
    chardev.setReading(false)
    if (this.queue.peak < REFILL_PART * 2) return
    this.#cancelRefill ??= this.#owner.after(REFILL_MS, () => {
      this.#cancelRefill = undefined
      // The exact wish, without a fraction, if still nothing has come.
      if (this.#open && this.queue.enableNotify()) this.run()
    })
  }

  /** Drops what the host has sent and nobody has read; it is counted. */
  discard(): void {
    this.#counters.hostToGuestDropped += this.chardev?.discardInput() ?? 0
  }

  /** The ring is not touched again: the guest takes its buffers back when it hears of the removal. */
  remove(): void {
    this.#open = false
    this.#cancelRefill?.()
    this.chardev = undefined
  }

  /** The rest in a later turn; until then the chardev has nothing to say. */
  #defer(chardev: Chardev): void {
    chardev.setReading(false)
    this.#owner.work.deferQueue(this.queue.index)
  }
}
