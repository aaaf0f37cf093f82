/**
 * One port in the guest: what the device said about it, who is there on either side, and the chardev that shows it to
 * programs. The mirror of device/port.ts; the bytes move in transmit.ts and receive.ts.
 */

import type { Chardev, ChardevEnd } from '../chardev/chardev.ts'
import { VmchannelError } from '../errors.ts'
import { newDriverCounters, type DriverPortCounters, type PortOwner } from './port-settings.ts'
import type { Receiver } from './receive.ts'
import type { Transmitter } from './transmit.ts'

export class DriverPort implements ChardevEnd {
  readonly id: number
  readonly counters: DriverPortCounters = newDriverCounters()
  readonly #transmitter: Transmitter
  readonly #receiver: Receiver
  readonly #owner: PortOwner
  readonly #receiveBuffers: number
  #chardev: Chardev | undefined
  #name: string | undefined
  #console = false
  #size: { cols: number; rows: number } | undefined
  #hostOpen = false
  #gone = false

  /** `receiveBuffers`: how many buffers the receiveq gets once somebody reads. */
  constructor(id: number, transmitter: Transmitter, receiver: Receiver, receiveBuffers: number, owner: PortOwner) {
    this.id = id
    this.#transmitter = transmitter
    this.#receiver = receiver
    this.#receiveBuffers = receiveBuffers
    this.#owner = owner
    transmitter.counters = receiver.counters = this.counters
    // At least one (§5.3.5): a device may speak before anybody listens.
    receiver.fill(1)
  }

  /** As the device said it, checked to be fit for a file name; undefined where it has none. */
  get name(): string | undefined {
    return this.#name
  }
  get console(): boolean {
    return this.#console
  }
  /** Of a console, in characters. */
  get size(): { cols: number; rows: number } | undefined {
    return this.#size
  }
  get hostOpen(): boolean {
    return this.#hostOpen
  }
  /** Removed, or broken: nothing moves any more. */
  get gone(): boolean {
    return this.#gone
  }
  get chardev(): Chardev | undefined {
    return this.#chardev
  }
  /** Chains of what programs wrote that the device has not given back. */
  get unsent(): number {
    return this.#gone ? 0 : this.#transmitter.inFlight
  }
  get guestOpen(): boolean {
    return this.#chardev?.connected ?? false
  }

  /** Shows the port to programs; once in its life. */
  attach(open: (end: ChardevEnd) => Chardev): Chardev {
    if (this.#gone) throw new VmchannelError('ERR_VMCHANNEL_CLOSED', `port ${this.id} is gone`)
    if (this.#chardev) throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `port ${this.id} has a chardev already`)
    const chardev = open(this)
    this.#chardev = this.#transmitter.chardev = this.#receiver.chardev = chardev
    if (chardev.connected) this.#setGuestOpen(true)
    return chardev
  }

  // --- what the chardev says

  setConnected(connected: boolean): void {
    if (!this.#gone) this.#setGuestOpen(connected)
  }
  readable(): void {
    if (!this.#gone) this.#transmitter.run()
  }
  writable(): void {
    if (!this.#gone) this.#receiver.run()
  }
  /** No message carries a size from the guest to the host. */
  resized(): void {}
  warn(message: string): void {
    this.#owner.warn(this, message)
  }

  #setGuestOpen(open: boolean): void {
    // What was written before the end is told of before the end is.
    this.#transmitter.rest()
    if (open) this.#receiver.fill(this.#receiveBuffers)
    this.#receiver.setOpen(open)
    this.#owner.guestOpen(this, open)
    this.#transmitter.run()
  }

  // --- interrupts

  transmit(): void {
    if (!this.#gone) this.#transmitter.transmitted()
  }
  receive(): void {
    if (!this.#gone) this.#receiver.received()
  }
  /** Nothing moves before others have had their turn: to look again is of no use. */
  get turnOver(): boolean {
    return this.#owner.turn.over
  }
  /**
   * Looks without having been interrupted; true when the device has given something back. Whoever does so again and
   * again calls `rest` when he stops: the device may be told of things a little later meanwhile.
   */
  poll(): boolean {
    if (this.#gone) return false
    const received = this.#receiver.poll()
    return this.#transmitter.poll() || received
  }
  rest(): void {
    if (this.#gone) return
    this.#receiver.rest()
    this.#transmitter.rest()
  }

  // --- what the device says

  /** The first name counts, as in Linux. */
  setName(name: string): void {
    if (this.#name !== undefined) return
    this.#name = name
    this.#owner.event(this, 'named')
  }

  setConsole(): void {
    if (this.#console) return
    this.#console = true
    this.#owner.event(this, 'console')
  }

  setSize(cols: number, rows: number): void {
    this.#size = { cols, rows }
    this.#owner.event(this, 'resized')
  }

  setHostOpen(open: boolean): void {
    if (open === this.#hostOpen) return
    this.#hostOpen = open
    this.#owner.event(this, open ? 'host-open' : 'host-close')
    if (!this.#gone) this.#transmitter.setOpen(open)
  }

  /** The device removed it or broke it, or the driver stops: programs see it go, its queues keep their buffers. */
  end(event: 'removed' | 'broken' | 'stopped'): void {
    if (this.#gone) return
    this.#gone = true
    this.#hostOpen = false
    const chardev = this.#chardev
    this.#chardev = this.#transmitter.chardev = this.#receiver.chardev = undefined
    if (event === 'removed') {
      // What came for it before is dropped, its buffers go back; what is still to come is dropped as it comes.
      this.#receiver.setOpen(false)
      this.#transmitter.setOpen(false)
    }
    chardev?.close()
    this.#owner.event(this, event)
  }
}
