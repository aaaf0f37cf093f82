/**
 * One port: two queues, a chardev, and who is there on either side.
 *
 * The bytes move in transmit.ts and receive.ts; here is what opening, closing and removing mean for them.
 */

import type { Chardev, ChardevEnd } from '../chardev/chardev.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import { copyOfCounters, newCounters, type PortCounters } from './counters.ts'
import { again, Lookout } from './lookout.ts'
import type { PortOwner, PortSettings } from './port-settings.ts'
import { Receiver } from './receive.ts'
import { Transmitter } from './transmit.ts'

/** How long an answer is looked for: it takes a process on another processor as long to be woken and to answer. */
const ANSWER_MS = 0.03
/** And what the guest says next: its interrupt goes through the VMM, which wakes a virtual processor. */
const NEXT_MS = 0.1
/** After that others have their turn. */
const TALK_MS = 1

export class Port implements ChardevEnd {
  readonly settings: PortSettings
  readonly counters: PortCounters
  readonly #notes: PortNotes
  readonly #transmitter: Transmitter
  readonly #receiver: Receiver
  readonly #owner: PortOwner
  readonly #answer = new Lookout(ANSWER_MS, () => this.#answered())
  readonly #next = new Lookout(NEXT_MS, () => this.#available(this.#transmitter.queue))
  #chardev: Chardev | undefined
  /** Each calls off what will be done about data that is left at close; one end's has nothing to do with the other's. */
  #inputDeadline: (() => void) | undefined
  #outputDeadline: (() => void) | undefined

  constructor(
    settings: PortSettings,
    transmitq: DeviceQueue,
    receiveq: DeviceQueue,
    owner: PortOwner,
    notes: PortNotes,
  ) {
    this.settings = settings
    this.#owner = owner
    this.#notes = notes
    this.counters = newCounters(notes.counters)
    if (!notes.resumed) {
      notes.counters.fill(0)
      this.#flags = 0
    }
    this.#transmitter = new Transmitter(transmitq, settings, this.counters, owner)
    this.#receiver = new Receiver(receiveq, this.counters, owner)
  }

  get id(): number {
    return this.settings.id
  }
  get guestOpen(): boolean {
    return (this.#flags & OPEN) !== 0
  }
  get guestReady(): boolean {
    return (this.#flags & READY) !== 0
  }
  get hostConnected(): boolean {
    return this.#chardev?.connected ?? false
  }
  get chardev(): Chardev | undefined {
    return this.#chardev
  }
  /** What PORT_OPEN tells the guest: a port that drops rather than waits is always open, or its writers would wait. */
  get openForGuest(): boolean {
    return this.settings.policy !== 'block' || this.hostConnected
  }

  /** The counters as they are now. */
  stats(): PortCounters {
    const transmitBuffers = this.#transmitter.queue.consumed
    return { ...copyOfCounters(this.counters), transmitBuffers, receiveBuffers: this.#receiver.queue.consumed }
  }

  setChardev(chardev: Chardev): void {
    this.#chardev = this.#transmitter.chardev = this.#receiver.chardev = chardev
    if (this.#notes.resumed) this.#resume()
    else if (chardev.connected) this.counters.hostConnects++
    this.#owner.hostOpen(this, this.openForGuest)
  }

  // --- what the guest says

  /**
   * The transmitq's notification. A lone message may be answered at once, and the answer be followed by the next message:
   * to look for both here costs less than to sleep and to be woken, and the guest need not notify us.
   */
  transmit(): void {
    const { queue } = this.#transmitter
    if (!again(this)) return void this.#transmitter.run()
    const until = performance.now() + TALK_MS
    let before: number
    do {
      before = queue.consumed
      if (!this.#transmitter.run(false)) return
    } while (queue.consumed - before === 1 && this.#talk(until))
    this.#transmitter.run()
  }
  /** The receiveq's. */
  receive(): void {
    again(this)
    this.#receiver.run()
  }

  /** PORT_READY: the driver has made the port, closed, or has failed to. */
  setGuestReady(ready: boolean): void {
    this.#set(READY, ready)
    this.#transmitter.setReady(ready)
    if (!ready) this.setGuestOpen(false)
  }

  setGuestOpen(open: boolean): void {
    if (open === this.guestOpen) return
    this.#set(OPEN, open)
    this.counters[open ? 'guestOpens' : 'guestCloses']++
    this.#owner.event(this, open ? 'guest-open' : 'guest-close')
    this.#inputDeadline?.()
    this.#inputDeadline = undefined
    this.#receiver.setOpen(open)
    if (open) return
    const { onClose, drainMs } = this.settings
    if (onClose === 'discard') this.#receiver.discard()
    else if (onClose === 'drain') this.#inputDeadline = this.#owner.after(drainMs, () => this.#receiver.discard())
  }

  /** The driver is gone: reset. */
  guestReset(): void {
    this.setGuestReady(false)
  }

  // --- what the chardev says

  setConnected(connected: boolean): void {
    // Between its opening and setChardev a chardev may already talk: setChardev sees what is true then.
    if (!this.#chardev) return
    this.counters[connected ? 'hostConnects' : 'hostDisconnects']++
    this.#owner.event(this, connected ? 'host-connect' : 'host-disconnect')
    this.#outputDeadline?.()
    this.#outputDeadline = undefined
    this.#owner.hostOpen(this, this.openForGuest)
    const { onClose, drainMs, policy } = this.settings
    // Policy block waits for a host that was never there; one that left is waited for as on-close says. The drop
    // policies go on: they hold or drop what comes.
    if (policy === 'block' && !connected && onClose === 'drain')
      this.#outputDeadline = this.#owner.after(drainMs, () => this.#setDropping(true))
    else if (policy === 'block') this.#setDropping(!connected && onClose !== 'keep')
    this.#transmitter.run()
    if (connected) this.#receiver.run()
  }

  readable(): void {
    again(this)
    this.#receiver.run()
  }
  writable(): void {
    this.#transmitter.run()
  }
  resized(cols: number, rows: number): void {
    this.#owner.resized(this, cols, rows)
  }
  warn(message: string): void {
    this.#owner.warn(this, message)
  }

  /** A byte of the emergency console (§5.3.5). */
  emergency(bytes: Uint8Array): void {
    this.#transmitter.inject(bytes)
  }

  /**
   * Quiesces the port before the guest is told that it is removed: what it has written is sent or counted as dropped,
   * and its rings are not touched again. Linux takes the buffers back from the live rings when it hears of the removal.
   */
  remove(): void {
    this.#inputDeadline?.()
    this.#outputDeadline?.()
    this.#transmitter.remove()
    this.#receiver.remove()
    this.#set(OPEN, false)
    this.#chardev?.close()
    this.#chardev = undefined
  }

  /** Looks for the answer of the far end and then for what the guest says to it; whether there is something. */
  #talk(until: number): boolean {
    const chardev = this.#chardev
    if (!chardev?.giveWay || !this.guestOpen || !this.#available(this.#receiver.queue)) return false
    const giveWay = (): void => chardev.giveWay?.()
    return this.#answer.look(giveWay) && performance.now() < until && this.#next.look(giveWay)
  }

  #available(queue: DeviceQueue): boolean {
    try {
      return queue.available() > 0
    } catch (error) {
      this.#owner.fault(queue, error)
      return false
    }
  }

  #answered(): boolean {
    const before = this.counters.hostToGuestBytes
    this.#receiver.run()
    return this.counters.hostToGuestBytes !== before
  }

  /** Who was there when another process ran this port. The queues come after this, and get things moving. */
  #resume(): void {
    const { counters } = this
    counters.guestToHostDropped += counters.held
    counters.held = 0
    this.#transmitter.setReady(this.guestReady)
    this.#receiver.setOpen(this.guestOpen)
    if (this.hostConnected) return
    const { onClose, drainMs, policy } = this.settings
    if ((this.#flags & DROPPING) !== 0) this.#transmitter.setDropping(true)
    else if (policy === 'block' && onClose === 'drain' && counters.hostDisconnects > 0)
      this.#outputDeadline = this.#owner.after(drainMs, () => this.#setDropping(true))
  }

  #setDropping(dropping: boolean): void {
    this.#set(DROPPING, dropping)
    this.#transmitter.setDropping(dropping)
  }

  get #flags(): number {
    return this.#notes.flags[this.settings.id]!
  }
  set #flags(flags: number) {
    this.#notes.flags[this.settings.id] = flags
  }
  #set(flag: number, on: boolean): void {
    this.#flags = on ? this.#flags | flag : this.#flags & ~flag
  }
}

/** Where a port keeps what a successor has to know. */
export interface PortNotes {
  /** A byte for each port, by number. */
  flags: Uint8Array
  /** This port's. */
  counters: Float64Array
  /** Another process ran this port before. */
  resumed: boolean
}

const READY = 1
const OPEN = 2
const DROPPING = 4
