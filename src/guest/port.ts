/**
 * One port of a device in this guest, as a program sees it: what is known of it, and `open` for its bytes. Made by
 * device.ts when the device tells of the port.
 */

import { EventEmitter } from 'node:events'
import { wait, type WaitOptions } from '../client/abort.ts'
import type { DriverPort } from '../driver/port.ts'
import type { DriverPortCounters, DriverPortEventName } from '../driver/port-settings.ts'
import { VmchannelError } from '../errors.ts'
import { GuestPortStream } from './port-stream.ts'
import { StreamChardev } from './stream-chardev.ts'

export interface GuestPortEvents {
  /** Somebody on the host is there, or no longer. Not in step with the bytes, which come another way. */
  'host-open': []
  'host-close': []
  /** A console has a new size, in characters. */
  resized: [cols: number, rows: number]
  /** The port is gone: the host has removed it, or the device has ended. The last event. */
  removed: [reason: VmchannelError]
}

export interface OpenPortOptions {
  /** Bytes kept each way before the other side has to wait. Default 256 KiB. */
  highWaterMark?: number
}

export class GuestPort extends EventEmitter<GuestPortEvents> {
  readonly #port: DriverPort
  readonly #chardev: StreamChardev
  #stream: GuestPortStream | undefined
  #hostOpen: boolean
  #gone: VmchannelError | undefined

  /** @internal */
  constructor(port: DriverPort) {
    super()
    this.#port = port
    this.#hostOpen = port.hostOpen
    this.#chardev = port.attach((end) => new StreamChardev(end)) as StreamChardev
  }

  /** Port number, QEMU's nr. */
  get id(): number {
    return this.#port.id
  }

  /** As the host gave it; null where it has none. */
  get name(): string | null {
    return this.#port.name ?? null
  }

  /** A port for a terminal, which has a size. */
  get console(): boolean {
    return this.#port.console
  }

  /** Of a console, where the host has told it. */
  get size(): { cols: number; rows: number } | null {
    return this.#port.size ?? null
  }

  /** Whether somebody on the host is there, as far as is known here. */
  get hostOpen(): boolean {
    return this.#hostOpen
  }

  get removed(): boolean {
    return this.#gone !== undefined
  }

  /** What it has moved, dropped, and waited for. */
  get counters(): Readonly<DriverPortCounters> {
    return this.#port.counters
  }

  /** Chains on their way to the host that the device has not given back. */
  get unsent(): number {
    return this.#port.unsent
  }

  /** Opens the port, as a program opens its character device: one stream at a time. */
  open({ highWaterMark }: OpenPortOptions = {}): GuestPortStream {
    if (this.#gone) throw this.#gone
    const stream = new GuestPortStream(this, this.#chardev, highWaterMark)
    this.#stream = stream
    stream.once('close', () => {
      if (this.#stream === stream) this.#stream = undefined
    })
    return stream
  }

  /** Resolves when somebody on the host is there; at once where somebody is. */
  waitForHost(options: WaitOptions = {}): Promise<void> {
    return wait<void>(`waiting for the host at port ${this.name ?? this.id}`, options, (resolve, reject) => {
      if (this.#gone) reject(this.#gone)
      else if (this.#hostOpen) resolve()
      this.on('host-open', resolve).on('removed', reject)
      return () => void this.off('host-open', resolve).off('removed', reject)
    })
  }

  /** @internal What the driver has heard. */
  handle(event: DriverPortEventName): void {
    if (this.#gone) return
    if (event === 'host-open' || event === 'host-close') {
      const open = event === 'host-open'
      if (open === this.#hostOpen) return
      this.#hostOpen = open
      this.emit(event)
    } else if (event === 'resized' && this.size) this.emit('resized', this.size.cols, this.size.rows)
  }

  /** @internal */
  setGone(why: 'removed' | 'broken' | 'stopped' | 'closed'): void {
    if (this.#gone) return
    const reason = new VmchannelError('ERR_VMCHANNEL_CLOSED', `port ${this.name ?? this.id}: ${REASONS[why]}`)
    this.handle('host-close')
    this.#gone = reason
    this.#stream?.gone(reason, why === 'removed' || why === 'closed')
    this.emit('removed', reason)
  }
}

const REASONS = {
  removed: 'the host has removed it',
  broken: 'the device broke the rules of virtio',
  stopped: 'the device was reset, or is gone',
  closed: 'the device was closed',
}
