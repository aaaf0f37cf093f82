/**
 * The device's control messages (§5.3.6.2): per port a little state instead of a queue of messages.
 *
 * What the guest must learn is kept as state ("was told it exists", "was told it is open") and turned into messages
 * when the control receiveq has a buffer. So nothing can be lost and nothing can grow, whatever the guest does with its
 * buffers. Two edges are kept although the state is the same again: a connection that went and came back, and a port
 * that was removed and added under the same id.
 */

import { PeerFault } from '../errors.ts'
import type { Batch } from '../ring/batch.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import type { ResizeOrder } from '../spec/console.ts'
import { nextNews } from './control-news.ts'
import type { ControlNotes, PortNews } from './control-notes.ts'
import { costOf, type DeviceWork } from './work.ts'

/**
 * After hibernation Linux says PORT_READY for all ports that it remembers at once, as it says DEVICE_READY when it
 * starts; this is ample time for either.
 */
const RESTORE_MS = 1000
/** What it costs to touch a port, see work.ts. */
const TOUCH_COST = 10
/** More than the ring holds: a guest that adds useless buffers as fast as they go back does not keep us. */
const USELESS_MAX = 2048

export class ControlSender {
  readonly #ports: (PortNews | undefined)[] = []
  /** Ids with something to tell, in the order in which they got it; at most one entry a port. */
  readonly #dirty = new Set<number>()
  /** Those whose state has changed since it was written down. */
  readonly #unsaved = new Set<number>()
  readonly #queue: DeviceQueue
  readonly #batch: Batch
  readonly #work: DeviceWork
  /** What this turn has left for it. */
  #budget = 0
  /** Buffers without a writable byte, one after the other. */
  #useless = 0
  readonly #order: ResizeOrder
  readonly #notes: ControlNotes
  readonly #after: (ms: number, fn: () => void) => () => void
  #sizeNegotiated = false
  #driverReady = false
  /** The driver is saying which ports it remembers: the others are announced afterwards. */
  #restoring = false
  #cancelRestore: (() => void) | undefined
  /** The driver never said DEVICE_READY, and is told of ports all the same: see `#listen`. */
  #unasked = false
  /** It has had its time to say something; `pump` looks whether it is there. */
  #silent = false
  /** DEVICE_READY 0: it is told nothing. */
  #failed = false
  /** Messages delivered, and buffers that were too short for one. */
  sent = 0
  truncated = 0

  constructor(
    queue: DeviceQueue,
    batch: Batch,
    notes: ControlNotes,
    order: ResizeOrder,
    work: DeviceWork,
    after: (ms: number, fn: () => void) => () => void,
  ) {
    this.#work = work
    this.#queue = queue
    this.#notes = notes
    this.#after = after
    this.#batch = batch
    this.#order = order
  }

  /** The driver starts from nothing: it knows no port. */
  reset(sizeNegotiated: boolean): void {
    this.#driverReady = this.#failed = this.#unasked = false
    this.#endRestore()
    this.#notes.reset()
    this.#sizeNegotiated = sizeNegotiated
    this.#useless = 0
    this.#dirty.clear()
    for (let id = 0; id < this.#ports.length; id++) {
      const port = this.#ports[id]
      if (!port) continue
      this.#unsaved.add(id)
      if (!port.exists) {
        this.#ports[id] = undefined
        continue
      }
      port.toldExists = port.toldOpen = port.ready = port.takenBack = false
      port.owesRemove = port.owesConsole = port.owesName = port.owesSize = port.owesClose = false
    }
  }

  /** Writes down what has changed since the last time; to be called before what was told is published. */
  save(): void {
    const all = [this.#driverReady, this.#restoring, this.#sizeNegotiated, this.#unasked, this.#failed]
    this.#notes.save(
      this.#ports,
      this.#unsaved,
      all.reduce((bits, set, i) => bits | (set ? 1 << i : 0), 0),
    )
    this.#unsaved.clear()
  }

  /** What another process has told the driver. Ports that are there have been added again, by `add`. */
  resume(pump: () => void): void {
    const all = this.#notes.resume(this.#ports, this.#queue.next)
    this.#sizeNegotiated = (all & 4) !== 0
    if (all & 2) this.#restore(pump)
    this.#driverReady = (all & 1) !== 0
    this.#unasked = (all & 8) !== 0
    this.#failed = (all & 16) !== 0
    this.#touchAll()
  }

  /** Whether the driver may still speak of ports from before a hibernation. */
  get remembering(): boolean {
    return this.#restoring || this.#unasked || !this.#driverReady
  }

  add(id: number, console: boolean, name: Uint8Array | undefined): void {
    const before = this.#ports[id]
    this.#ports[id] = {
      exists: true,
      console,
      name,
      size: undefined,
      open: false,
      toldExists: false,
      toldOpen: false,
      owesRemove: before?.owesRemove ?? false,
      owesConsole: false,
      owesName: false,
      owesSize: false,
      owesClose: false,
      ready: false,
      known: false,
      takenBack: false,
    }
    this.#touch(id)
  }

  remove(id: number): void {
    const port = this.#ports[id]
    if (!port) return
    port.exists = false
    port.ready = false
    // A port that the driver never heard of needs no farewell (§5.3.6.2.1).
    if (port.toldExists) port.owesRemove = true
    port.toldExists = false
    this.#touch(id)
    if (!port.owesRemove) this.#ports[id] = undefined
  }

  setOpen(id: number, open: boolean): void {
    const port = this.#ports[id]
    if (!port?.exists) return
    if (!open && port.toldOpen) port.owesClose = true
    port.open = open
    this.#touch(id)
  }

  setSize(id: number, cols: number, rows: number): void {
    const port = this.#ports[id]
    if (!port?.exists) return
    port.size = { cols, rows }
    port.owesSize = true
    this.#touch(id)
  }

  /** DEVICE_READY: the driver wants to hear of every port, and may ask again; or it could not set up the device. */
  deviceReady(able: boolean): void {
    this.#failed = !able
    this.#driverReady = able
    this.#endRestore()
    if (!able) return
    this.#work.charge(this.#ports.length * TOUCH_COST, 0)
    // One that was only slow has heard already: a port that exists is not added (§5.3.6.2.1).
    const told = this.#unasked
    this.#unasked = false
    for (let id = 0; id < this.#ports.length; id++) {
      const port = this.#ports[id]
      if (!port?.exists) continue
      if (!told) port.toldExists = false
      this.#touch(id)
    }
  }

  /**
   * PORT_READY for a port that exists; false when the driver means another. After hibernation Linux says this for the
   * ports it remembers, and never says DEVICE_READY. A port that came meanwhile under an old number is not the one it
   * remembers: that one is taken back first. Ports that it does not mention are announced a little later.
   */
  portReady(id: number, pump: () => void): boolean {
    const port = this.#ports[id]
    if (!port?.exists) return false
    this.#restore(pump)
    this.#touch(id)
    if (!port.known) {
      port.owesRemove = true
      port.toldExists = false
      return false
    }
    port.toldExists = true
    port.ready = true
    port.toldOpen = false
    port.owesClose = false
    port.owesConsole = port.console
    port.owesName = port.name !== undefined
    port.owesSize = port.size !== undefined
    return true
  }

  /** A driver that came back from hibernation remembers a port that is gone. */
  farewell(id: number, pump: () => void): void {
    if (this.#ports[id]) return
    this.#restore(pump)
    this.add(id, false, undefined)
    const port = this.#ports[id]!
    port.toldExists = true
    this.remove(id)
  }

  /**
   * Sends what can be sent now, in this turn; the caller flushes the queue. Afterwards the queue notifies if something
   * is left. `again` does the same later.
   */
  pump(again: () => void): void {
    this.#listen(again)
    this.#budget = this.#work.quantum
    do {
      this.#queue.disableNotify()
      this.#sendAll()
      if (this.#budget <= 0) return this.#work.deferQueue(this.#queue.index)
    } while (this.#dirty.size > 0 && this.#queue.enableNotify())
  }

  /** Until all is said, there is no buffer, or the budget is used up. */
  #sendAll(): void {
    for (const id of this.#dirty) {
      for (;;) {
        const port = this.#ports[id]
        const message = port && this.#driverReady && nextNews(id, port, this.#restoring, this.#sizeOrder)
        if (!message) break
        // Whether there was a buffer is known from here only: a moment later the guest may have given one back.
        if (!this.#send(message.bytes, id, port, message.done)) return
        if (!port.exists && !port.owesRemove) this.#ports[id] = undefined
        this.#unsaved.add(id)
        this.sent++
      }
      this.#dirty.delete(id)
    }
  }

  /** The driver runs, and did not ask for all ports: it remembers some, and says which in the next moments. */
  #restore(pump: () => void): void {
    if (this.#driverReady) return
    this.#driverReady = this.#restoring = true
    this.#cancelRestore?.()
    this.#cancelRestore = this.#after(RESTORE_MS, () => {
      this.#endRestore()
      this.#touchAll()
      pump()
    })
  }

  /**
   * The driver runs and says nothing: as Linux after hibernation, if it remembers no port. It is told of ports as soon
   * as it has had its time and has given a buffer for it. QEMU's device waits for nothing when a port is plugged.
   */
  #listen(again: () => void): void {
    if (this.#driverReady || this.#failed) return
    if (this.#silent) {
      this.#silent = false
      if (this.#queue.available() === 0) return
      this.#driverReady = this.#unasked = true
      this.#touchAll()
    } else if (!this.#cancelRestore)
      this.#cancelRestore = this.#after(RESTORE_MS, () => {
        this.#cancelRestore = undefined
        this.#silent = true
        again()
      })
  }

  #endRestore(): void {
    this.#restoring = this.#silent = false
    this.#cancelRestore?.()
    this.#cancelRestore = undefined
  }

  /** How sizes are told; undefined where the driver does not want any. */
  get #sizeOrder(): ResizeOrder | undefined {
    return this.#sizeNegotiated ? this.#order : undefined
  }

  #touchAll(): void {
    for (let id = 0; id < this.#ports.length; id++) if (this.#ports[id]) this.#touch(id)
  }

  #touch(id: number): void {
    this.#dirty.add(id)
    this.#unsaved.add(id)
  }

  /**
   * Puts one message about a port into one control receive buffer; false when there is none, or in this turn no time
   * for it. `done` makes true what the driver knows then.
   */
  #send(bytes: Uint8Array, id: number, port: PortNews, done: (this: void) => void): boolean {
    const batch = this.#batch
    while (this.#budget > 0) {
      const room = this.#queue.gather(batch, 'writable', 1, 1)
      if (batch.count === 0) return false
      this.#budget = this.#work.charge(costOf(batch.list.looked, 1, 0), this.#budget)
      if (room > 0) {
        this.#useless = 0
        if (room < bytes.length) this.truncated++
        const len = batch.list.copyFrom(bytes)
        done()
        this.#notes.say(id, port, (this.#queue.next + 1) & 0xffff)
        this.#queue.complete(batch, len)
        return true
      }
      // A buffer without a writable byte: back with it, the next may be better.
      this.#queue.complete(batch, 0)
      if (++this.#useless === USELESS_MAX)
        throw new PeerFault('control receive buffers without a writable byte, one after the other (§5.3.6.1)')
    }
    return false
  }
}
