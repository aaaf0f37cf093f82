/**
 * One port: two queues, a chardev, and who is there on either side.
 *
 * The bytes move in transmit.ts and receive.ts; here is what opening, closing and removing mean for them.
 */

import type { Chardev, ChardevEnd } from '../chardev/chardev.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import { newCounters, type PortCounters } from './counters.ts'
import type { PortOwner, PortSettings } from './port-settings.ts'
import { Receiver } from './receive.ts'
import { Transmitter } from './transmit.ts'

export class Port implements ChardevEnd {
  readonly settings: PortSettings
  readonly counters: PortCounters = newCounters()
  readonly #transmitter: Transmitter
  readonly #receiver: Receiver
  readonly #owner: PortOwner
  #chardev: Chardev | undefined
  #guestReady = false
  #guestOpen = false
  /** Each calls off what will be done about data that is left at close; one end's has nothing to do with the other's. */
  #inputDeadline: (() => void) | undefined
  #outputDeadline: (() => void) | undefined

  constructor(settings: PortSettings, transmitq: DeviceQueue, receiveq: DeviceQueue, owner: PortOwner) {
    this.settings = settings
    this.#owner = owner
    this.#transmitter = new Transmitter(transmitq, settings, this.counters, owner)
    this.#receiver = new Receiver(receiveq, this.counters, owner)
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
  /** What PORT_OPEN tells the guest: a port that drops rather than waits is always open, or its writers would wait. */
  get openForGuest(): boolean {
    return this.settings.policy !== 'block' || this.hostConnected
  }

  /** The counters as they are now. */
  stats(): PortCounters {
    const transmitBuffers = this.#transmitter.queue.consumed
    return { ...this.counters, transmitBuffers, receiveBuffers: this.#receiver.queue.consumed }
  }

  setChardev(chardev: Chardev): void {
    this.#chardev = this.#transmitter.chardev = this.#receiver.chardev = chardev
    if (chardev.connected) this.counters.hostConnects++
    this.#owner.hostOpen(this, this.openForGuest)
  }

  // --- what the guest says

  /** Notifications of the two queues. */
  transmit(): void {
    this.#transmitter.run()
  }
  receive(): void {
    this.#receiver.run()
  }

  /** PORT_READY: the driver has made the port, closed, or has failed to. */
  setGuestReady(ready: boolean): void {
    this.#guestReady = ready
    this.#transmitter.setReady(ready)
    if (!ready) this.setGuestOpen(false)
  }

  setGuestOpen(open: boolean): void {
    if (open === this.#guestOpen) return
    this.#guestOpen = open
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
      this.#outputDeadline = this.#owner.after(drainMs, () => this.#transmitter.setDropping(true))
    else if (policy === 'block') this.#transmitter.setDropping(!connected && onClose !== 'keep')
    this.#transmitter.run()
    if (connected) this.#receiver.run()
  }

  readable(): void {
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
    this.#guestOpen = false
    this.#chardev?.close()
    this.#chardev = undefined
  }
}
