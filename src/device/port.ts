/**
 * One port: two queues, a chardev, and who is there on either side.
 *
 * The bytes move in transmit.ts and receive.ts; here is what opening, closing and removing mean for them.
 */

import type { Chardev, ChardevEnd } from '../chardev/chardev.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import { Conversation } from './conversation.ts'
import { copyOfCounters, newCounters, type PortCounters } from './counters.ts'
import type { PortOwner, PortSettings } from './port-settings.ts'
import { Receiver } from './receive.ts'
import { Transmitter } from './transmit.ts'

export class Port implements ChardevEnd {
  readonly settings: PortSettings
  readonly counters: PortCounters
  readonly #notes: PortNotes
  readonly #transmitter: Transmitter
  readonly #receiver: Receiver
  readonly #owner: PortOwner
  readonly #conversation: Conversation
  #chardev: Chardev | undefined
  #removed = false
  /** Transmit chains that were consumed when a firmware's driver opened the port. */
  #before = 0
  /**
   * Each calls off what will be done about data that is left at close; one end's has nothing to do with the other's.
   */
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
    this.#conversation = new Conversation(this.#transmitter, this.#receiver, this.counters, owner)
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

  /** Notifications of the two queues. */
  transmit(): void {
    if (this.#removed) this.#transmitter.giveBack()
    else this.#conversation.run()
    if ((this.#flags & FIRMWARE) !== 0 && this.#transmitter.queue.consumed !== this.#before) this.#open(true)
  }
  receive(): void {
    this.#conversation.interrupted()
    this.#receiver.run()
  }

  /** PORT_READY: the driver has made the port, closed, or has failed to. */
  setGuestReady(ready: boolean): void {
    this.#set(READY, ready)
    this.#transmitter.setReady(ready)
    if (!ready) this.setGuestOpen(false)
  }

  /**
   * A firmware's driver opens every port, and nobody reads them: one that is not a console stays closed until something
   * is written to it.
   */
  setGuestOpen(open: boolean): void {
    const withheld = open && !this.guestOpen && this.#notes.driver.firmware && !this.settings.console
    if (!withheld) return this.#open(open)
    if ((this.#flags & FIRMWARE) === 0) this.counters.firmwareOpens++
    this.#set(FIRMWARE, true)
    this.#before = this.#transmitter.queue.consumed
  }

  #open(open: boolean): void {
    this.#set(FIRMWARE, false)
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

  /** The driver is about to be gone: what programs have written is sent, as far as the chardev takes it at once. */
  drain(): void {
    if (!this.#removed) this.#transmitter.drain()
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
    this.#conversation.interrupted()
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
   * and its rings are not touched again, but for what a console still writes. Linux takes the buffers back from the
   * live rings when it hears of the removal. `budget` is what that may cost, see work.ts.
   */
  remove(budget: number): void {
    this.#inputDeadline?.()
    this.#outputDeadline?.()
    this.#removed = true
    this.#transmitter.remove(budget)
    this.#receiver.remove()
    this.#set(OPEN, false)
    this.#chardev?.close()
    this.#chardev = undefined
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
  /** What is known of the driver. */
  driver: { readonly firmware: boolean }
}

const READY = 1
const OPEN = 2
const DROPPING = 4
/** A firmware's driver has opened it, and the port is closed all the same. */
const FIRMWARE = 8
