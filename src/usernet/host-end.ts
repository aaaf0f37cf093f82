/**
 * The host end of usernet: waits at a path for QEMU's guestfwd, and for a guest behind it. It always takes what comes:
 * QEMU writes to us from its main loop, and a guest whose host end does not read stops altogether. What is too much
 * breaks the credit and with it the session, and is read and dropped. Called by the device process, one per VM.
 */

import { randomBytes } from 'node:crypto'
import { Socket } from 'node:net'
import { LoopbackMachine } from '../device/attach/loopback.ts'
import type { ConsoleDevice } from '../device/console.ts'
import { VirtioPci } from '../device/pci/virtio-pci.ts'
import { attachLoopback } from '../driver/attach/loopback.ts'
import { ConsoleDriver } from '../driver/console.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import { describeError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { Watch } from '../ffi/poll.ts'
import { listenUnix, type UnixListener } from '../ffi/unix-listen.ts'
import type { Log } from '../log.ts'
import { GuestMemory } from '../mem/guest-memory.ts'
import { WINDOW } from './channel.ts'
import { encodeWelcome, FrameReader, makeTag, VERSION, type Hello } from './frame.ts'
import { HostLink } from './host-link.ts'
import { LinkFault, LOOPBACK_DRIVER, WINDOW_MAX, WINDOW_MIN } from './link.ts'

/** A connection that ends before this was somebody who looked whether the socket is alive. */
const VMM_MS = 100
/** Complaints about a guest that breaks its sessions, per connection; the log is not its to fill. */
const COMPLAINTS_MAX = 20

export interface UsernetOptions {
  /** Path of the socket that QEMU connects to. */
  path: string
  device: ConsoleDevice
  log: Log
  onAttach?(): void
  onDetach?(): void
}

export class UsernetServer {
  readonly path: string
  readonly #options: UsernetOptions
  readonly #listener: UnixListener
  readonly #watch: Watch
  readonly #driver: ConsoleDriver
  readonly #reader: FrameReader
  #socket: Socket | undefined
  #link: HostLink | undefined
  #attached = false
  #complaints = 0
  #closed = false

  /** Listens. Throws VmchannelError. */
  constructor(options: UsernetOptions) {
    this.path = options.path
    this.#options = options
    const { device, log } = options
    const memory = new GuestMemory()
    const { transport, pool } = attachLoopback(new LoopbackMachine(new VirtioPci(device, memory), memory))
    this.#driver = new ConsoleDriver(transport, pool, {
      ...LOOPBACK_DRIVER,
      log,
      defer: setImmediate,
      onPort: (event) => this.#event(event),
    })
    this.#reader = new FrameReader('host', {
      greeted: (hello) => this.#greeted(hello),
      frame: (type, channel, payload) => this.#guarded(() => this.#link?.receive(type, channel, payload)),
      broken: (reason) => this.#fault(reason),
    })
    this.#listener = listenUnix(options.path)
    this.#watch = new Watch(this.#listener.fd, () => this.#accept())
    this.#watch.want(true, false)
  }

  /** Whether a QEMU is connected. */
  get attached(): boolean {
    return this.#attached
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#watch.close()
    this.#listener.close()
    this.#endSession()
    this.#socket?.destroy()
  }

  #accept(): void {
    let fd: number | undefined
    try {
      fd = this.#listener.accept()
    } catch (error) {
      this.#options.log.error(describeError(error))
    }
    if (fd === undefined) return
    if (this.#socket) {
      closeFd(fd)
      this.#options.log.warn(`${this.path}: a second connection was refused, there is one`)
      return
    }
    const socket = new Socket({ fd })
    this.#socket = socket
    this.#complaints = 0
    const timer = setTimeout(() => this.#attach(), VMM_MS)
    socket.on('data', (chunk: Buffer) => {
      this.#attach()
      this.#reader.push(chunk)
    })
    socket.on('drain', () => this.#guarded(() => this.#link?.drained()))
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      this.#socket = undefined
      this.#endSession()
      this.#reader.reset()
      if (!this.#attached) return
      this.#attached = false
      this.#options.log.info(`${this.path}: VMM detached`)
      if (!this.#closed) this.#options.onDetach?.()
    })
  }

  #attach(): void {
    if (this.#attached || !this.#socket) return
    this.#attached = true
    this.#options.log.info(`${this.path}: VMM attached`)
    this.#options.onAttach?.()
  }

  /** A guest end has started: all that was before is over. */
  #greeted({ version, window, nonce }: Hello): void {
    const { log, device } = this.#options
    const socket = this.#socket!
    this.#endSession()
    const tag = makeTag(randomBytes(4).readUInt32LE(0))
    const welcome = encodeWelcome({ version: VERSION, maxPorts: device.maxPorts, window: WINDOW, nonce, tag })
    if (window < WINDOW_MIN || window > WINDOW_MAX) return this.#fault(`a window of ${window} bytes`)
    socket.write(welcome)
    if (version !== VERSION) return this.#fault(`a guest end of version ${version}, this is ${VERSION}`)
    this.#reader.expect(tag)
    const stream = {
      get held() {
        return socket.writableLength
      },
      send: (bytes: Uint8Array) => void socket.write(bytes),
    }
    this.#link = new HostLink(stream, tag, window, device)
    log.info(`${this.path}: the guest end has connected`)
    this.#driver.start()
  }

  #endSession(): void {
    if (!this.#link) return
    this.#link.end()
    this.#link = undefined
    this.#driver.stop()
  }

  #event(event: DriverPortEvent): void {
    const link = this.#link
    try {
      link?.handle(event)
    } catch (error) {
      if (!(error instanceof LinkFault)) throw error
      // Not from inside the driver, which would be stopped.
      setImmediate(() => this.#link === link && this.#fault(error.message))
    }
  }

  #guarded(fn: () => void): void {
    try {
      fn()
    } catch (error) {
      if (!(error instanceof LinkFault)) throw error
      this.#fault(error.message)
    }
  }

  /** The guest end finds out by itself: nobody answers its PING. */
  #fault(reason: string): void {
    if (this.#complaints++ < COMPLAINTS_MAX)
      this.#options.log.error(`${this.path}: the guest end was cut off: ${reason}`)
    this.#reader.reset()
    this.#endSession()
  }
}
