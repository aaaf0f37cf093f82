/**
 * A virtio-serial device of this guest in the hands of a program: ports as streams, without character devices. The
 * mirror of library/device.ts. The program has to be root, and the device is given back when it closes it, or ends.
 */

import { EventEmitter } from 'node:events'
import { wait, type WaitOptions } from '../client/abort.ts'
import type { DriverPort } from '../driver/port.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import { VmchannelError } from '../errors.ts'
import { GuestPort, type OpenPortOptions } from './port.ts'
import type { GuestPortStream } from './port-stream.ts'
import { startSession, type GuestSession, type SessionOptions } from './session.ts'
import { Settling } from './settling.ts'

export interface GuestDeviceEvents {
  'port-added': [port: GuestPort]
  'port-removed': [port: GuestPort]
  'host-open': [port: GuestPort]
  'host-close': [port: GuestPort]
  /** The last event; with a reason where this program did not ask for the end. */
  close: [reason: VmchannelError | undefined]
}

export interface OpenDeviceOptions extends SessionOptions {
  /** When it fires, the device is given back. */
  signal?: AbortSignal
}

export interface ConnectOptions extends OpenDeviceOptions, OpenPortOptions {
  /** Name or number of the port. It may come later: a port can be added while the guest runs. */
  port: number | string
  /** Milliseconds to wait for it; no limit where it is left out. */
  timeout?: number
}

/** Takes a device from the kernel. Rejects with VmchannelError, which says what is missing. */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<GuestDevice> {
  const { signal } = options
  if (signal?.aborted) throw new VmchannelError('ERR_VMCHANNEL_ABORTED', 'taking the device: aborted')
  return new GuestDevice(options)
}

/** Takes a device and opens one port of it; the device is given back when the stream is closed. */
export async function connect(options: ConnectOptions): Promise<GuestPortStream> {
  const device = await openDevice(options)
  try {
    const stream = await device.open(options.port, options)
    stream.once('close', () => void device.close())
    return stream
  } catch (error) {
    await device.close()
    throw error
  }
}

/** About what an interrupt costs under UIO and TCG; the program's own thread is the driver's, nobody else waits. */
const PATIENCE_US = 100

export class GuestDevice extends EventEmitter<GuestDeviceEvents> {
  readonly #session: GuestSession
  /** All that the driver has, and those that the program knows. */
  readonly #ports = new Map<DriverPort, GuestPort>()
  readonly #shown = new Set<GuestPort>()
  readonly #settling = new Settling((port) => this.#show(port))
  readonly #forget: () => void
  #closing = false
  #closed = false

  /** @internal Use `openDevice`. */
  constructor(options: OpenDeviceOptions) {
    super()
    const { signal, ...rest } = options
    this.#session = startSession(rest, { handle: (event) => this.#handle(event), patience: PATIENCE_US })
    const abort = (): void => void this.close()
    // A program that ends without a word leaves a device that nobody drives: it is given back all the same.
    const exit = (): void => this.#session.stopNow()
    signal?.addEventListener('abort', abort, { once: true })
    process.on('exit', exit)
    this.#forget = () => {
      signal?.removeEventListener('abort', abort)
      process.off('exit', exit)
    }
    this.#session.ended.then(
      () => this.#end(this.#closing ? undefined : closed(`${this.address} is gone`)),
      (error: VmchannelError) => this.#end(error),
    )
  }

  /** As lspci prints it. */
  get address(): string {
    return this.#session.device
  }

  /** Ports that the device may have: 0 … maxPorts - 1. */
  get maxPorts(): number {
    return this.#session.driver.maxPorts
  }

  get closed(): boolean {
    return this.#closed
  }

  /** The ports there are now. */
  get ports(): GuestPort[] {
    return [...this.#shown].toSorted((a, b) => a.id - b.id)
  }

  /** Resolves with a port when it is there; at once where it is. */
  port(ref: number | string, options: WaitOptions = {}): Promise<GuestPort> {
    const is = (port: GuestPort): boolean => port.id === ref || port.name === ref
    return wait<GuestPort>(`waiting for port ${ref}`, options, (resolve, reject) => {
      const found = this.ports.find(is)
      if (this.#closing || this.#closed) reject(closed('the device was closed'))
      else if (found) resolve(found)
      const added = (port: GuestPort): void => {
        if (is(port)) resolve(port)
      }
      const gone = (reason: VmchannelError | undefined): void => reject(reason ?? closed('the device was closed'))
      this.on('port-added', added).on('close', gone)
      return () => void this.off('port-added', added).off('close', gone)
    })
  }

  /** Waits for a port and opens it. */
  async open(ref: number | string, options: WaitOptions & OpenPortOptions = {}): Promise<GuestPortStream> {
    return (await this.port(ref, options)).open(options)
  }

  /**
   * Ends all ports, resets the device and gives it back to the kernel. What was written and has not reached the host
   * gets a second for that.
   */
  async close(): Promise<void> {
    this.#closing = true
    await this.#session.stop().catch(() => {})
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Called from inside the driver: the program hears of it in the next tick. */
  #handle({ event, port }: DriverPortEvent): void {
    if (event === 'added') {
      this.#ports.set(port, new GuestPort(port))
      this.#settling.begin(port)
    } else if (event === 'removed' || event === 'broken' || event === 'stopped') {
      this.#settling.forget(port)
      const gone = this.#ports.get(port)
      this.#ports.delete(port)
      const why = event === 'stopped' && this.#closing ? 'closed' : event
      if (gone) process.nextTick(() => this.#hide(gone, why))
    } else {
      if (event === 'named' || event === 'console' || event === 'host-open') this.#settling.now(port)
      process.nextTick(() => this.#tell(port, event))
    }
  }

  #show(port: DriverPort): void {
    process.nextTick(() => {
      const shown = this.#ports.get(port)
      if (!shown) return
      this.#shown.add(shown)
      this.emit('port-added', shown)
    })
  }

  #hide(port: GuestPort, why: 'removed' | 'broken' | 'stopped' | 'closed'): void {
    port.setGone(why)
    if (this.#shown.delete(port)) this.emit('port-removed', port)
  }

  #tell(driverPort: DriverPort, event: DriverPortEvent['event']): void {
    const port = this.#ports.get(driverPort)
    if (!port) return
    const before = port.hostOpen
    port.handle(event)
    if (before !== port.hostOpen) this.emit(port.hostOpen ? 'host-open' : 'host-close', port)
  }

  #end(reason: VmchannelError | undefined): void {
    if (this.#closed) return
    this.#closed = true
    this.#forget()
    // After what the ports have to say of it.
    process.nextTick(() => this.emit('close', reason))
  }
}

function closed(why: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CLOSED', why)
}
