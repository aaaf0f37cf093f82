/**
 * One port of a device as a program sees it: what is known of it, and what can be done with it. PortStream adds the bytes.
 * Made by device.ts when the device process tells of the port, so that no later event is missed.
 */

import { EventEmitter } from 'node:events'
import { wait, type WaitOptions } from '../client/abort.ts'
import type { PortInfo, PortStats } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import type { DeviceLink } from './device-link.ts'

export interface PortEvents {
  /** A program in the guest has opened the port. Not in step with the bytes, which come another way. */
  'guest-open': []
  'guest-close': []
  /** Somebody on the host is there, or no longer. */
  'host-connect': []
  'host-disconnect': []
  /** The driver in the guest has made the port. */
  ready: []
  /** The port is gone: removed by anybody, or its device has ended. The last event. */
  removed: [reason: VmchannelError]
}

export class PortHandle extends EventEmitter<PortEvents> {
  /** Port number, QEMU's nr. */
  readonly id: number
  /** Name in the guest: /dev/virtio-ports/NAME. */
  readonly name: string | null
  readonly #link: DeviceLink
  #guestOpen = false
  #hostConnected = false
  #gone: VmchannelError | undefined

  /** @internal */
  constructor(link: DeviceLink, id: number, name: string | null) {
    super()
    this.id = id
    this.name = name
    this.#link = link
  }

  /** Whether a program in the guest has the port open, as far as is known here. */
  get guestOpen(): boolean {
    return this.#guestOpen
  }

  /** Whether the host's end is there. */
  get hostConnected(): boolean {
    return this.#hostConnected
  }

  get removed(): boolean {
    return this.#gone !== undefined
  }

  /** Resolves when a program in the guest has the port open; at once where one has. */
  waitForGuest(options: WaitOptions = {}): Promise<void> {
    const what = `waiting for the guest to open port ${this.name ?? this.id}`
    return wait<void>(what, options, (resolve, reject) => {
      if (this.#gone) reject(this.#gone)
      else if (this.#guestOpen) resolve()
      this.on('guest-open', resolve).on('removed', reject)
      return () => void this.off('guest-open', resolve).off('removed', reject)
    })
  }

  /** All there is to know, fresh from the device process. */
  async info(options: WaitOptions = {}): Promise<PortInfo> {
    const { counters: _, ...info } = await this.stats(options)
    return info
  }

  /** With what it has moved and dropped. */
  async stats(options: WaitOptions = {}): Promise<PortStats> {
    if (this.#gone) throw this.#gone
    const [stats] = await this.#link.request('port.stats', { port: this.id }, options)
    return stats!
  }

  /** Tells the guest the size of a console, in characters. */
  async resize(cols: number, rows: number, options: WaitOptions = {}): Promise<void> {
    if (this.#gone) throw this.#gone
    await this.#link.request('port.resize', { port: this.id, cols, rows }, options)
  }

  /** Takes the port out of the guest. Where it is gone already, that is fine. */
  async remove(options: WaitOptions = {}): Promise<void> {
    if (this.#gone) return
    await this.#link.request('port.remove', { port: this.id }, options)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.remove()
  }

  /** @internal What the device process says now. */
  update({ guestOpen, hostConnected }: { guestOpen?: boolean; hostConnected?: boolean }): void {
    if (this.#gone) return
    if (guestOpen !== undefined && guestOpen !== this.#guestOpen) {
      this.#guestOpen = guestOpen
      this.emit(guestOpen ? 'guest-open' : 'guest-close')
    }
    if (hostConnected !== undefined && hostConnected !== this.#hostConnected) {
      this.#hostConnected = hostConnected
      this.emit(hostConnected ? 'host-connect' : 'host-disconnect')
    }
  }

  /** @internal */
  setGone(reason: VmchannelError): void {
    if (this.#gone) return
    this.update({ guestOpen: false, hostConnected: false })
    this.#gone = reason
    this.emit('removed', reason)
  }
}
