/**
 * One port: moves bytes between its two queues and its chardev, as far as both sides go now.
 *
 * The ring is the buffer. With policy `block` a chain stays in the ring until the chardev took it, and what the host
 * sends stays in the host's socket until the guest has buffers. The drop policies and consoles never make the guest
 * wait: Linux spins with interrupts off until a console buffer comes back. What is dropped is counted.
 */

import { GONE, type Chardev, type ChardevEnd } from '../chardev/chardev.ts'
import type { Batch, DeviceQueue } from '../ring/device-queue.ts'
import type { Iovec } from '../mem/iovec.ts'
import { newCounters, type PortCounters } from './counters.ts'
import { HoldBuffer } from './hold-buffer.ts'

/** What happens to guest output that the host does not take in time. */
export type PortPolicy = 'block' | 'drop-oldest' | 'drop-newest' | 'discard'
/** What happens to data that is left when an end closes; undefined is QEMU's way, see `PortSettings.onClose`. */
export type OnClose = 'discard' | 'keep' | 'drain'

export interface PortSettings {
  readonly id: number
  readonly name: string | undefined
  readonly console: boolean
  readonly policy: PortPolicy
  /** Capacity of the hold buffer of the drop policies, bytes. */
  readonly buffer: number
  /**
   * Data left at close. Unset: what the guest wrote for a host peer that left is dropped, what the host wrote for a
   * guest program that closed waits for the next. `drain`: it waits, at most `drainMs`.
   */
  readonly onClose: OnClose | undefined
  readonly drainMs: number
}

/** What a port needs of its device. */
export interface PortOwner {
  /** Scratch for one batch; used within one call only. */
  readonly batch: Batch
  interrupt(queue: DeviceQueue): void
  /** A queue of this port broke a rule. */
  fault(queue: DeviceQueue, error: unknown): void
  /** Tells the guest whether the host is there. */
  hostOpen(port: Port, open: boolean): void
  resized(port: Port, cols: number, rows: number): void
  warn(port: Port, message: string): void
  /** Calls later, after other events had their turn; the way to cut the sending. */
  defer(fn: () => void): void
  after(ms: number, fn: () => void): () => void
  event(port: Port, event: 'guest-open' | 'guest-close' | 'host-connect' | 'host-disconnect'): void
}

/** Bytes of one gather: what one writev is worth. */
const GATHER_LEN = 1 << 20
/** Receive buffers for one readv: enough for what a socket holds. */
const RECEIVE_LEN = 256 << 10
/** Bytes a port may move before other ports have their turn. */
const TURN_LEN = 4 << 20

export class Port implements ChardevEnd {
  readonly settings: PortSettings
  readonly counters: PortCounters = newCounters()
  readonly transmitq: DeviceQueue
  readonly receiveq: DeviceQueue
  readonly #owner: PortOwner
  readonly #hold: HoldBuffer | undefined
  #chardev: Chardev | undefined
  #guestReady = false
  #guestOpen = false
  #removed = false
  #transmitDeferred = false
  #receiveDeferred = false
  #cancelDrain: (() => void) | undefined

  constructor(settings: PortSettings, transmitq: DeviceQueue, receiveq: DeviceQueue, owner: PortOwner) {
    this.settings = settings
    this.transmitq = transmitq
    this.receiveq = receiveq
    this.#owner = owner
    const holds = settings.policy === 'drop-oldest' || settings.policy === 'drop-newest'
    this.#hold = holds ? new HoldBuffer(settings.buffer) : undefined
  }

  get id(): number {
    return this.settings.id
  }
  get guestOpen(): boolean {
    return this.#guestOpen
  }
  get guestReady(): boolean {
    return this.#guestReady
  }
  get hostConnected(): boolean {
    return this.#chardev?.connected ?? false
  }
  get chardev(): Chardev | undefined {
    return this.#chardev
  }
  /** What PORT_OPEN tells the guest: a port that drops rather than waits is always open, or writers would wait. */
  get openForGuest(): boolean {
    return this.settings.policy !== 'block' || this.hostConnected
  }

  /** The counters as they are now. */
  stats(): PortCounters {
    return { ...this.counters, transmitBuffers: this.transmitq.consumed, receiveBuffers: this.receiveq.consumed }
  }

  setChardev(chardev: Chardev): void {
    this.#chardev = chardev
    if (chardev.connected) this.counters.hostConnects++
    this.#owner.hostOpen(this, this.openForGuest)
  }

  // --- what the guest says

  /** PORT_READY: the driver has made the port, closed. */
  setGuestReady(ready: boolean): void {
    this.#guestReady = ready
    if (!ready) this.setGuestOpen(false)
  }

  setGuestOpen(open: boolean): void {
    if (open === this.#guestOpen) return
    this.#guestOpen = open
    this.counters[open ? 'guestOpens' : 'guestCloses']++
    this.#owner.event(this, open ? 'guest-open' : 'guest-close')
    if (open) {
      this.#stopDrain()
      this.receive()
      return
    }
    this.#chardev?.setReading(false)
    const onClose = this.settings.onClose
    if (onClose === 'discard') this.#discardInput()
    else if (onClose === 'drain') this.#drain(() => !this.#guestOpen && this.#discardInput())
  }

  /** The driver is gone: reset. */
  guestReset(): void {
    this.#guestReady = false
    if (!this.#guestOpen) return
    this.setGuestOpen(false)
  }

  // --- what the chardev says

  setConnected(connected: boolean): void {
    this.counters[connected ? 'hostConnects' : 'hostDisconnects']++
    this.#owner.event(this, connected ? 'host-connect' : 'host-disconnect')
    if (connected) this.#stopDrain()
    else {
      const onClose = this.settings.onClose ?? 'discard'
      if (this.settings.policy === 'block') {
        if (onClose === 'discard') this.#discardOutput()
        else if (onClose === 'drain') this.#drain(() => !this.hostConnected && this.#discardOutput())
      }
    }
    this.#owner.hostOpen(this, this.openForGuest)
    if (!connected) return
    this.transmit()
    this.receive()
  }

  readable(): void {
    this.receive()
  }

  writable(): void {
    this.transmit()
  }

  resized(cols: number, rows: number): void {
    this.#owner.resized(this, cols, rows)
  }

  warn(message: string): void {
    this.#owner.warn(this, message)
  }

  // --- guest → host

  /** Moves what the guest has made available on the transmitq. */
  transmit(): void {
    if (this.#removed) return
    const queue = this.transmitq
    try {
      let budget = TURN_LEN
      let waiting = !this.#sendHeld()
      do {
        queue.disableNotify()
        for (;;) {
          const bytes = queue.gather(this.#owner.batch, 'readable', GATHER_LEN)
          const { count, list } = this.#owner.batch
          if (count === 0) break
          const taken = this.#send(list, waiting)
          queue.complete(this.#owner.batch, taken)
          budget -= taken
          if (taken < bytes) {
            waiting = true
            break
          }
          if (budget <= 0) break
        }
        if (queue.flush()) this.#interrupt(queue)
        if (budget <= 0) {
          this.#deferTransmit()
          return
        }
        // While the chardev is full no notification is of use: writable() comes back here.
        if (waiting && queue.available() > 0) {
          this.counters.transmitStalls++
          return
        }
      } while (queue.enableNotify())
    } catch (error) {
      this.#owner.fault(queue, error)
    }
  }

  /** Hands guest output to the chardev or the policy; returns the bytes that are dealt with. */
  #send(list: Iovec, waiting: boolean): number {
    const total = list.total
    let taken = 0
    if (!waiting && this.#chardev?.connected) {
      const result = total === 0 ? 0 : this.#chardev.writev(list)
      taken = result === GONE ? 0 : result
    }
    this.counters.guestToHostBytes += taken
    if (this.settings.policy === 'block') return taken
    if (taken < total) {
      if (!this.#hold) this.counters.guestToHostDropped += total - taken
      else {
        const drop = this.settings.policy === 'drop-oldest' ? 'oldest' : 'newest'
        this.counters.guestToHostDropped += this.#hold.take(list, taken, drop)
        this.counters.held = this.#hold.len
      }
    }
    return total
  }

  /** Sends what is held first; true when nothing is held any more. */
  #sendHeld(): boolean {
    const hold = this.#hold
    if (!hold) return true
    const list = this.#owner.batch.list
    while (hold.len > 0) {
      if (!this.#chardev?.connected) return false
      hold.lend(list)
      const taken = this.#chardev.writev(list)
      if (taken <= 0) return false
      hold.consume(taken)
      this.counters.held = hold.len
      this.counters.guestToHostBytes += taken
    }
    return true
  }

  // --- host → guest

  /** Moves what the host has sent into the guest's buffers; asks for more only while both are there. */
  receive(): void {
    const chardev = this.#chardev
    if (this.#removed || !chardev) return
    if (!this.#guestOpen) {
      chardev.setReading(false)
      return
    }
    const queue = this.receiveq
    try {
      let budget = TURN_LEN
      for (;;) {
        queue.disableNotify()
        const room = queue.gather(this.#owner.batch, 'writable', RECEIVE_LEN)
        if (room === 0) {
          queue.complete(this.#owner.batch, 0)
          if (this.#owner.batch.count > 0) continue
          if (queue.enableNotify()) continue
          // No buffers: the host waits in its socket until the guest makes some available.
          this.counters.receiveStalls++
          chardev.setReading(false)
          break
        }
        const bytes = chardev.readv(this.#owner.batch.list)
        if (bytes <= 0) {
          if (bytes === 0) chardev.setReading(true)
          break
        }
        queue.complete(this.#owner.batch, bytes)
        this.counters.hostToGuestBytes += bytes
        budget -= bytes
        if (budget <= 0) {
          chardev.setReading(false)
          this.#deferReceive()
          break
        }
      }
      if (queue.flush()) this.#interrupt(queue)
    } catch (error) {
      chardev.setReading(false)
      this.#owner.fault(queue, error)
    }
  }

  /** A byte of the emergency console (§5.3.5): sent or held, never waited for. */
  emergency(bytes: Uint8Array): void {
    const list = this.#owner.batch.list
    const ready = this.#sendHeld()
    list.clear()
    list.push(bytes, 0, bytes.length, 0)
    const taken = this.#send(list, !ready)
    this.counters.guestToHostDropped += bytes.length - taken
  }

  // --- end of life

  /**
   * Quiesces the port before the guest is told that it is removed: what it has written is dealt with or counted, and
   * its rings are not touched again. Linux takes the buffers back from the live rings when it hears of the removal.
   */
  remove(): void {
    this.transmit()
    this.#discardOutput()
    this.#removed = true
    this.#stopDrain()
    this.#guestOpen = false
    if (this.#hold) this.counters.guestToHostDropped += this.#hold.clear()
    this.#chardev?.close()
    this.#chardev = undefined
  }

  #discardOutput(): void {
    const queue = this.transmitq
    try {
      for (;;) {
        const bytes = queue.gather(this.#owner.batch, 'readable', GATHER_LEN)
        if (this.#owner.batch.count === 0) break
        queue.complete(this.#owner.batch, bytes)
        this.counters.guestToHostDropped += bytes
      }
      if (queue.flush()) this.#interrupt(queue)
      queue.enableNotify()
    } catch (error) {
      this.#owner.fault(queue, error)
    }
  }

  #discardInput(): void {
    this.counters.hostToGuestDropped += this.#chardev?.discardInput() ?? 0
  }

  #drain(then: () => void): void {
    this.#stopDrain()
    this.#cancelDrain = this.#owner.after(this.settings.drainMs, then)
  }

  #stopDrain(): void {
    this.#cancelDrain?.()
    this.#cancelDrain = undefined
  }

  #deferTransmit(): void {
    if (this.#transmitDeferred) return
    this.#transmitDeferred = true
    this.#owner.defer(() => {
      this.#transmitDeferred = false
      this.transmit()
    })
  }

  #deferReceive(): void {
    if (this.#receiveDeferred) return
    this.#receiveDeferred = true
    this.#owner.defer(() => {
      this.#receiveDeferred = false
      this.receive()
    })
  }

  #interrupt(queue: DeviceQueue): void {
    this.counters.interrupts++
    this.#owner.interrupt(queue)
  }
}
