/**
 * Guest → host: drains a transmitq into a chardev.
 *
 * With policy `block` a chain stays in the ring until the chardev took it: the guest feels it. The drop policies, and
 * consoles, give every buffer back at once: Linux spins with interrupts off until a console buffer comes back.
 */

import { GONE, type Chardev } from '../chardev/chardev.ts'
import type { Iovec } from '../mem/iovec.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import type { PortCounters } from './counters.ts'
import { HoldBuffer } from './hold-buffer.ts'
import { Linger } from './linger.ts'
import { alone } from './lookout.ts'
import type { PortOwner, PortSettings } from './port-settings.ts'
import { Settlement } from './settlement.ts'
import { costOf, QUANTUM } from './work.ts'

/**
 * Bytes of one gather, what one writev is worth. And half a ring at most: the driver has it back while we send the
 * rest.
 */
const GATHER_LEN = 1 << 20

export class Transmitter {
  readonly queue: DeviceQueue
  chardev: Chardev | undefined
  readonly #settings: PortSettings
  readonly #counters: PortCounters
  readonly #owner: PortOwner
  readonly #hold: HoldBuffer | undefined
  readonly #settlement: Settlement | undefined
  readonly #linger: Linger | undefined
  #lingering = false
  /** The last run did not ask for notifications: the next is a part of it. */
  #goesOn = false
  /** What was published when the time began to run. */
  #settleMark = 0
  #cancelSettle: (() => void) | undefined
  #ready = false
  #dropping = false

  constructor(queue: DeviceQueue, settings: PortSettings, counters: PortCounters, owner: PortOwner) {
    this.queue = queue
    this.#settings = settings
    this.#counters = counters
    this.#owner = owner
    const holds = settings.policy === 'drop-oldest' || settings.policy === 'drop-newest'
    this.#hold = holds ? new HoldBuffer(settings.buffer) : undefined
    this.#settlement = owner.settleMs > 0 ? new Settlement() : undefined
    this.#linger = owner.soon ? new Linger() : undefined
  }

  /**
   * Whether the driver has made the port. Until then the ring is not touched: what is in it may be the last port's of
   * this number, whose removal the guest has yet to hear of; it will take those buffers back itself.
   */
  setReady(ready: boolean): void {
    this.#ready = ready
    if (ready) this.run()
    else this.#stopSettling()
  }

  /**
   * Whether what the guest writes is for nobody. It may have yet to hear that the host has gone, and the next one is
   * not to get the end of an old talk; drivers that do not listen to that (FreeBSD's) would wait for ever, with a lock
   * held.
   */
  setDropping(dropping: boolean): void {
    this.#dropping = dropping
    if (dropping) this.run()
  }

  /**
   * Moves what the guest has made available, as far as the chardev takes it, and asks to be notified of more. Without
   * `arm` it does not ask: true then says that everything was moved, and that the caller has to. Where a later turn
   * goes on with the queue, nothing is done.
   */
  run(arm = true): boolean {
    const { work } = this.#owner
    if (work.isDeferred(this.queue.index)) return false
    return this.#run(arm, work.quantum)
  }

  #run(arm: boolean, budget: number): boolean {
    const { queue } = this
    const { batch, work } = this.#owner
    let full = !this.#sendHeld()
    if (!this.#ready) return false
    if (this.#dropping) {
      this.#discard(budget)
      return false
    }
    try {
      if (!arm || !this.#goesOn) this.#linger?.begin()
      this.#goesOn = !arm
      do {
        queue.disableNotify()
        while (budget > 0) {
          const bytes = queue.gather(batch, 'readable', GATHER_LEN, Math.max(1, queue.size >> 1))
          if (batch.count === 0) break
          this.#linger?.found(batch.count, bytes, queue.available())
          const { looked } = batch.list
          const taken = this.#send(batch.list, full)
          this.#settlement?.sent(batch.list.count)
          queue.complete(batch, taken)
          this.#settle(false)
          budget = work.charge(costOf(looked, batch.count, taken), budget)
          if (taken < bytes) {
            full = true
            break
          }
        }
        this.#settle(full || budget <= 0)
        if (budget <= 0) {
          work.deferQueue(queue.index)
          return false
        }
        // While the chardev is full no notification is of use: `writable` comes back here. A port that never makes the
        // guest wait goes on: it has taken everything, whatever the chardev said.
        if (full && this.#settings.policy === 'block' && queue.available() > 0) {
          this.#counters.transmitStalls++
          return false
        }
        if (!arm) return true
        if (this.#linger?.again(queue)) {
          this.#lookSoon()
          return true
        }
      } while (queue.enableNotify())
      return true
    } catch (error) {
      this.#owner.fault(queue, error)
      return false
    }
  }

  /** Bytes that come by another way than the ring (emergency console): sent, held or dropped, never waited for. */
  inject(bytes: Uint8Array): void {
    const full = !this.#sendHeld()
    const { list } = this.#owner.batch
    list.clear()
    list.push(bytes, 0, bytes.length, 0)
    this.#counters.guestToHostDropped += bytes.length - this.#send(list, full)
  }

  /** Drops what the guest has made available; it is counted. */
  #discard(budget: number): void {
    const { queue } = this
    const { batch, work } = this.#owner
    try {
      while (budget > 0) {
        const bytes = queue.gather(batch, 'readable', GATHER_LEN)
        if (batch.count === 0 && !queue.enableNotify()) break
        queue.complete(batch, bytes)
        this.#counters.guestToHostDropped += bytes
        budget = work.charge(costOf(batch.list.looked, batch.count, 0), budget)
      }
      queue.publish()
      this.#tell()
      if (budget <= 0) work.deferQueue(queue.index)
    } catch (error) {
      this.#owner.fault(queue, error)
    }
  }

  /**
   * A last run before the ring goes, whether or not the driver has notified, and whether or not a later turn is asked
   * for.
   */
  drain(): void {
    if (this.queue.enabled) this.#run(false, this.#owner.work.quantum)
  }

  /** What comes after the removal is dropped. */
  giveBack(): void {
    const { work } = this.#owner
    if (!work.isDeferred(this.queue.index)) this.#discard(work.quantum)
  }

  /**
   * The last run, and what is left is dropped, as far as `budget` goes: no guest of manners has more in its ring.
   * Afterwards the ring is not touched again, but for `giveBack`.
   */
  remove(budget: number): void {
    this.#run(true, budget)
    if (this.#ready) this.#discard(budget)
    this.#ready = false
    this.#stopSettling()
    this.chardev = undefined
    if (this.#hold) this.#counters.guestToHostDropped += this.#hold.clear()
    this.#counters.held = 0
  }

  /** Hands guest output to the chardev and the policy; returns the bytes that are dealt with. */
  #send(list: Iovec, full: boolean): number {
    const { total } = list
    let taken = 0
    if (!full && total > 0 && this.chardev?.connected) {
      const result = this.chardev.writev(list)
      taken = result === GONE ? 0 : result
    }
    this.#counters.guestToHostBytes += taken
    if (this.#settings.policy === 'block') return taken
    if (taken < total) {
      const drop = this.#settings.policy === 'drop-oldest' ? 'oldest' : 'newest'
      this.#counters.guestToHostDropped += this.#hold ? this.#hold.take(list, taken, drop) : total - taken
      this.#counters.held = this.#hold?.len ?? 0
    }
    return total
  }

  /** Sends what is held first; true when nothing is held any more. */
  #sendHeld(): boolean {
    const hold = this.#hold
    if (!hold) return true
    const { batch, work } = this.#owner
    const { list } = batch
    let budget = QUANTUM
    while (hold.len > 0) {
      if (!this.chardev?.connected) return false
      if (budget <= 0) {
        work.deferQueue(this.queue.index)
        return false
      }
      hold.lend(list)
      const taken = this.chardev.writev(list)
      if (taken <= 0) return false
      budget = work.charge(costOf(0, 0, taken), budget)
      hold.consume(taken)
      this.#counters.held = hold.len
      this.#counters.guestToHostBytes += taken
    }
    return true
  }

  /**
   * Publishes what was sent; the interrupt for it comes now, or with what follows, or not at all. Now where the chardev
   * is full: the driver piles up what it has, and may be waiting for the first of it to come back.
   */
  #settle(now: boolean): void {
    const { queue } = this
    const settlement = this.#settlement
    queue.publish()
    if (!queue.unjudged) return
    if (now || !settlement || !this.#mayWait(settlement)) return this.#tell()
    if (!this.#cancelSettle) this.#startTimer(settlement)
  }

  #mayWait(settlement: Settlement): boolean {
    const { queue } = this
    if (settlement.mayWait(queue.size)) return true
    // So much is out only if the driver has not come by.
    if (!this.#cancelSettle || !queue.excused(this.#settleMark)) return false
    this.#settleMark = queue.published
    settlement.settled()
    return true
  }

  #startTimer(settlement: Settlement): void {
    const { queue } = this
    settlement.started()
    this.#settleMark = queue.published
    this.#cancelSettle = this.#owner.after(this.#owner.settleMs, () => {
      this.#cancelSettle = undefined
      const cameBy = queue.excused(this.#settleMark)
      settlement.expired(cameBy)
      if (!cameBy) return this.#tell()
      settlement.settled()
      if (queue.unjudged) this.#startTimer(settlement)
    })
  }

  #stopSettling(): void {
    this.#cancelSettle?.()
    this.#cancelSettle = undefined
  }

  /** Interrupts, if the driver wants that. */
  #tell(): void {
    this.#settlement?.settled()
    if (this.queue.judge()) this.#interrupt()
  }

  /** The driver is at it, see linger.ts: until then it need not say that it has more. */
  #lookSoon(): void {
    if (this.#lingering) return
    this.#lingering = true
    this.#owner.soon!(() => {
      this.#lingering = false
      // Who would hold up the event loop has to know that it is needed here too.
      alone(this)
      this.run()
    })
  }

  #interrupt(): void {
    this.#counters.interrupts++
    this.#owner.interrupt(this.queue)
  }
}
