/**
 * The host end's session: the ports of a console device, driven by our own driver half over the loopback, each with a
 * channel to the guest in the place of a program. So a port is the same here as over vfio-user: policies, counters,
 * what happens at close. Made by host-end.ts for each HELLO.
 */

import type { ConsoleDevice } from '../device/console.ts'
import type { DriverPort } from '../driver/port.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import type { LinkChannel } from './channel.ts'
import { ADD_CONSOLE, ADD_KEEP, FRAME } from './frame.ts'
import { Link, LinkFault, type LinkStream } from './link.ts'

interface Shown {
  readonly channel: LinkChannel
  readonly port: DriverPort
  told: boolean
  resized: boolean
}

export class HostLink extends Link {
  readonly #device: ConsoleDevice
  readonly #shown = new Map<DriverPort, Shown>()
  /** Channels of ports that have gone, which the guest was told of. */
  readonly #gone: number[] = []
  /** Channels that a guest program has open. */
  readonly #opened = new Set<LinkChannel>()
  #silent = false
  /** There is a port to tell of, or a size. */
  #news = false

  constructor(stream: LinkStream, tag: number, window: number, device: ConsoleDevice) {
    super(stream, tag, window)
    this.#device = device
  }

  /** Events of the driver. */
  handle({ event, port }: DriverPortEvent): void {
    if (this.ended) return
    if (event === 'added') return this.#add(port)
    const shown = this.#shown.get(port)
    if (!shown) return
    if (event === 'resized') shown.resized = this.#news = true
    else if (event === 'host-open') shown.channel.setLocalOpen(true)
    else if (event === 'host-close') this.#hostClosed(shown)
    else if (event === 'removed' || event === 'broken' || event === 'stopped') this.#remove(shown)
    this.pump()
  }

  #add(port: DriverPort): void {
    if (this.exhausted) throw new LinkFault('no channel number is free any more')
    const channel = this.newChannel(this.next, true)
    this.#shown.set(port, { channel, port, told: false, resized: false })
    this.#news = true
    port.attach((end) => channel.bind(end))
    channel.setLocalOpen(port.hostOpen)
    this.pump()
  }

  #remove({ channel, port, told }: Shown): void {
    this.#shown.delete(port)
    this.#opened.delete(channel)
    this.channels.delete(channel.number)
    channel.close()
    if (told) this.#gone.push(channel.number)
  }

  /** What the guest wrote for a host that has left is dropped here as it is in a ring. */
  #hostClosed({ channel, port }: Shown): void {
    channel.setLocalOpen(false)
    const own = this.#device.port(port.id)
    if (!own || own.settings.policy !== 'block') return
    const { onClose } = own.settings
    if (onClose === undefined || onClose === 'discard') own.counters.guestToHostDropped += channel.discardInput()
  }

  protected override announce(): void {
    for (const shown of this.#news ? this.#shown.values() : []) {
      if (this.room <= 0) return
      const { number } = shown.channel
      if (!shown.told) {
        shown.told = true
        this.say(FRAME.ADD, number, this.#description(shown.port.id))
      }
      const size = shown.port.size
      if (!shown.resized || !size) continue
      shown.resized = false
      const bytes = Buffer.alloc(4)
      bytes.writeUInt16LE(size.cols, 0)
      bytes.writeUInt16LE(size.rows, 2)
      this.say(FRAME.SIZE, number, bytes)
    }
    this.#news = false
    while (this.#gone.length > 0 && this.room > 0) this.say(FRAME.REMOVE, this.#gone.shift()!)
  }

  #description(id: number): Buffer {
    const { name = '', console = false, onClose } = this.#device.port(id)?.settings ?? {}
    const bytes = Buffer.concat([Buffer.alloc(4), Buffer.from(name)])
    bytes.writeUInt16LE(id, 0)
    bytes[2] = (console ? ADD_CONSOLE : 0) | (onClose === 'keep' || onClose === 'drain' ? ADD_KEEP : 0)
    return bytes
  }

  protected special(type: number): void {
    if (type !== FRAME.BYE) throw new LinkFault(`a frame of type ${type}, which is the host's`)
    this.#opened.clear()
    for (const channel of this.channels.values()) channel.setRemoteOpen(false)
  }

  protected override opened(channel: LinkChannel, open: boolean): void {
    if (open) this.#opened.add(channel)
    else this.#opened.delete(channel)
    super.opened(channel, open)
  }

  /** Its programs may be gone, or the machine is stopped: nobody is there, until something comes again. */
  protected override silent(): void {
    if (this.#silent) return
    this.#silent = true
    for (const channel of this.#opened) channel.setRemoteOpen(false)
  }

  protected override heard(): void {
    if (!this.#silent) return
    this.#silent = false
    for (const channel of this.#opened) channel.setRemoteOpen(true)
  }
}
