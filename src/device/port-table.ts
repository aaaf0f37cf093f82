/** The ports of a device by number, and the rules for numbers and names. */

import { VmchannelError } from '../errors.ts'
import { printable } from '../log.ts'
import type { PortSettings } from './port-settings.ts'
import type { Port } from './port.ts'
import type { DeviceWork } from './work.ts'

export class PortTable {
  readonly size: number
  readonly #ports: (Port | undefined)[]
  /** Numbers, with their names, of ports whose chardev is being opened. */
  readonly #reserved = new Map<number, string | undefined>()
  /** Consoles that were removed, by number. */
  readonly #leaving = new Map<number, Port>()

  constructor(size: number) {
    this.size = size
    this.#ports = Array.from({ length: size })
  }

  get(id: number): Port | undefined {
    return this.#ports[id]
  }

  /** Like `get`, for people. */
  find(id: number): Port {
    const port = this.#ports[id]
    if (!port) throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `port ${id}: there is no such port`)
    return port
  }

  /** All ports, by number. */
  list(): Port[] {
    return this.#ports.filter((port) => port !== undefined)
  }

  set(id: number, port: Port | undefined): void {
    this.#ports[id] = port
  }

  /** Takes a port out that has been removed. */
  drop(port: Port): void {
    this.#ports[port.id] = undefined
    if (port.settings.console) this.#leaving.set(port.id, port)
  }

  /**
   * Whose the transmitq of this number is: of a console that was removed, until the driver has made the next port of
   * this number. It waits, with interrupts off, for each buffer that it gives us, and may have yet to hear of the
   * removal.
   */
  writer(id: number): Port | undefined {
    if (this.#ports[id]?.guestReady) this.#leaving.delete(id)
    return this.#leaving.get(id) ?? this.#ports[id]
  }

  /**
   * Before the driver is reset, or the VMM is gone. A program's last words may be in a ring that the device has not
   * been notified of: a guest that powers off waits for nobody. No more ports than the turn has room for.
   */
  drain(work: DeviceWork): void {
    for (const port of this.#ports) {
      port?.drain()
      if (work.left <= 0) return
    }
  }

  /** The driver was reset: it waits for nothing any more. */
  guestReset(): void {
    this.#leaving.clear()
    for (const port of this.#ports) port?.guestReset()
  }

  /** All ports, by number; afterwards there are none. */
  takeAll(): Port[] {
    const all = this.list()
    this.#ports.fill(undefined)
    return all
  }

  /**
   * Keeps a number for a port to come: the one asked for, or the lowest free one, from 0 for consoles and from 1 for
   * others (port 0 is the console of drivers without MULTIPORT). Give it back with `release`.
   */
  reserve(settings: Pick<PortSettings, 'name' | 'console'> & { id?: number | undefined }): number {
    const { name } = settings
    if (name !== undefined) {
      const names = [...this.list().map((port) => port.settings.name), ...this.#reserved.values()]
      if (names.includes(name))
        throw new VmchannelError(
          'ERR_VMCHANNEL_IN_USE',
          `port name "${printable(name)}" is already in use on this device`,
          { hint: 'Give each port a name of its own.' },
        )
    }
    const id =
      settings.id === undefined ? this.#lowestFree(settings.console) : this.#checked(settings.id, settings.console)
    this.#reserved.set(id, name)
    return id
  }

  release(id: number): void {
    this.#reserved.delete(id)
  }

  #taken(id: number): boolean {
    return this.#ports[id] !== undefined || this.#reserved.has(id)
  }

  #lowestFree(console: boolean): number {
    for (let id = console || this.size === 1 ? 0 : 1; id < this.size; id++) if (!this.#taken(id)) return id
    throw new VmchannelError('ERR_VMCHANNEL_PORT', `no free port: this device has ${this.size}, all in use`, {
      hint:
        this.#ports[0] === undefined && this.size > 1
          ? 'Port 0 is free, but kept for a console. Remove a port, or start the device with a larger max-ports.'
          : 'Remove a port, or start the device with a larger max-ports.',
    })
  }

  #checked(id: number, console: boolean): number {
    if (!Number.isInteger(id) || id < 0 || id >= this.size)
      throw new VmchannelError(
        'ERR_VMCHANNEL_PORT',
        `port number ${id} is out of range: this device has ports 0 to ${this.size - 1}`,
        { hint: 'Choose a free number, or start the device with a larger max-ports.' },
      )
    if (id === 0 && !console && this.size > 1)
      throw new VmchannelError('ERR_VMCHANNEL_PORT', 'port number 0 is kept for a console', {
        hint: 'Leave the number out, or use 1 and above for ports that are not consoles.',
      })
    if (this.#taken(id)) throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `port number ${id} is already in use`)
    return id
  }
}
