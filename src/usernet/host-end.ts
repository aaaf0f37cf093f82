/**
 * The host end of usernet: waits at a path for QEMU's guestfwd, and for a guest behind it. It always takes what comes:
 * QEMU writes to us from its main loop, and a guest whose host end does not read stops altogether. What is too much
 * breaks the credit and with it the session, and is read and dropped. Called by the device process, one per VM.
 *
 * A session does not outlive its process, QEMU's connection does: QEMU never makes another one. Where a keeper has it,
 * a successor tells the guest end to start anew. What was on its way is lost, and ports come back.
 */

import { randomBytes } from 'node:crypto'
import { Socket } from 'node:net'
import { LoopbackMachine } from '../device/attach/loopback.ts'
import type { ConsoleDevice } from '../device/console.ts'
import { VirtioPci } from '../device/pci/virtio-pci.ts'
import { attachLoopback } from '../driver/attach/loopback.ts'
import { ConsoleDriver } from '../driver/console.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import { Turn, type Waiting } from '../driver/turn.ts'
import { describeError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { Watch } from '../ffi/poll.ts'
import { listenKept, type UnixListener } from '../ffi/unix-listen.ts'
import type { Log } from '../log.ts'
import { GuestMemory } from '../mem/guest-memory.ts'
import { recallFd, type Store } from '../store.ts'
import { WINDOW } from './channel.ts'
import { encodeWelcome, FRAME, FrameReader, makeTag, NONCE_LEN, PAD_LEN, VERSION, type Hello } from './frame.ts'
import { HostLink } from './host-link.ts'
import { LinkFault, LOOPBACK_DRIVER, WINDOW_MAX, WINDOW_MIN } from './link.ts'

/** A connection that ends before this was somebody who looked whether the socket is alive. */
const VMM_MS = 100
/**
 * Between two starts of a session, each of which sets up all queues: a program of the guest may say HELLO without end.
 */
const HELLO_MS = 250
/** What frames cost of a turn, in bytes; one that opens or closes a port is told to the device and its peers. */
const FRAME_COST = 16 << 10
const OPEN_COST = 64 << 10
const CHANNEL_COST = 1 << 10
/** Complaints about a guest that breaks its sessions, per connection; the log is not its to fill. */
const COMPLAINTS_MAX = 20

export interface UsernetOptions {
  /** Path of the socket that QEMU connects to. */
  path: string
  device: ConsoleDevice
  log: Log
  /** For a connection that outlives this process. */
  store?: Store | undefined
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
  readonly #turn = new Turn(setImmediate)
  readonly #rest: Waiting = { waits: false, run: () => this.#feed() }
  /** What has come and waits for its turn, from `#at` on. */
  #chunk: Buffer | undefined
  #at = 0
  /** The last HELLO, which is acted on when its time has come. */
  #hello: Hello | undefined
  #helloTimer: NodeJS.Timeout | undefined
  #started = -HELLO_MS
  #starts = 0
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
    // Here a vector costs nothing: one for each queue.
    const pci = new VirtioPci(device, memory, { vectors: device.queueCount + 1 })
    const { transport, pool } = attachLoopback(new LoopbackMachine(pci, memory))
    this.#driver = new ConsoleDriver(transport, pool, {
      ...LOOPBACK_DRIVER,
      log,
      defer: setImmediate,
      onPort: (event) => this.#event(event),
    })
    this.#reader = new FrameReader('host', {
      greeted: (hello) => this.#greeted(hello),
      frame: (type, channel, payload) => this.#frame(type, channel, payload),
      broken: (reason) => this.#fault(reason),
    })
    this.#listener = listenKept(options.path, options.store)
    this.#watch = new Watch(this.#listener.fd, () => this.#accept())
    this.#watch.want(true, false)
    const left = recallFd(options.store?.scope('vmm'), 'connection')
    if (left !== undefined) this.#resume(left)
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
    this.#forgetHello()
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
    this.#options.store?.scope('vmm').keep('connection', [fd])
    const socket = this.#take(fd)
    const timer = setTimeout(() => this.#attach(), VMM_MS)
    socket.on('close', () => clearTimeout(timer))
  }

  /** A guest end takes the welcome of another one's nonce for a new start; the zeros end a frame that was cut. */
  #resume(fd: number): void {
    this.#attached = true
    const socket = this.#take(fd)
    socket.write(Buffer.alloc(PAD_LEN))
    socket.write(this.#welcome(randomBytes(NONCE_LEN), makeTag(randomBytes(4).readUInt32LE(0))))
    this.#options.log.warn(`${this.path}: the guest end is told to start anew; what was on its way is lost`)
  }

  #welcome(nonce: Buffer, tag: number): Buffer {
    return encodeWelcome({ version: VERSION, maxPorts: this.#options.device.maxPorts, window: WINDOW, nonce, tag })
  }

  #take(fd: number): Socket {
    const socket = new Socket({ fd })
    this.#socket = socket
    this.#complaints = this.#starts = 0
    socket.on('data', (chunk: Buffer) => {
      this.#attach()
      this.#chunk = chunk
      this.#at = 0
      this.#feed()
    })
    socket.on('drain', () => this.#guarded(() => this.#link?.drained()))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#options.store?.scope('vmm').forget('connection')
      this.#socket = undefined
      this.#chunk = undefined
      this.#forgetHello()
      this.#endSession()
      this.#reader.reset()
      if (!this.#attached) return
      this.#attached = false
      this.#options.log.info(`${this.path}: VMM detached`)
      if (!this.#closed) this.#options.onDetach?.()
    })
    return socket
  }

  #attach(): void {
    if (this.#attached || !this.#socket) return
    this.#attached = true
    this.#options.log.info(`${this.path}: VMM attached`)
    this.#options.onAttach?.()
  }

  /** Takes what has come as far as the turn goes; QEMU waits for the rest. */
  #feed(): void {
    const [chunk, socket] = [this.#chunk, this.#socket]
    if (!chunk || !socket) return
    if (!this.#turn.over) this.#at = this.#reader.push(chunk, this.#at)
    if (this.#socket !== socket || this.#chunk !== chunk) return
    if (this.#at === chunk.length) {
      this.#chunk = undefined
      if (socket.isPaused()) socket.resume()
      return
    }
    socket.pause()
    this.#turn.wait(this.#rest)
  }

  #spend(cost: number): void {
    this.#turn.spend(cost)
    if (this.#turn.over) this.#reader.stop()
  }

  #frame(type: number, channel: number, payload: Buffer): void {
    this.#spend(FRAME_COST + payload.length)
    if (type === FRAME.OPEN) this.#spend(OPEN_COST)
    else if (type === FRAME.BYE) this.#spend((this.#link?.channels.size ?? 0) * CHANNEL_COST)
    this.#guarded(() => this.#link?.receive(type, channel, payload))
  }

  /** A guest end has started: all that was before is over. The last one counts, and it has to wait for its time. */
  #greeted(hello: Hello): void {
    this.#spend(FRAME_COST)
    this.#endSession()
    this.#reader.reset()
    this.#hello = hello
    const due = Math.max(0, this.#started + HELLO_MS - performance.now())
    this.#helloTimer ??= setTimeout(() => this.#start(), due)
  }

  #forgetHello(): void {
    clearTimeout(this.#helloTimer)
    this.#helloTimer = this.#hello = undefined
  }

  #start(): void {
    const hello = this.#hello
    this.#forgetHello()
    const socket = this.#socket
    if (!hello || !socket) return
    this.#started = performance.now()
    const { version, window, nonce } = hello
    const tag = makeTag(randomBytes(4).readUInt32LE(0))
    const welcome = this.#welcome(nonce, tag)
    if (window < WINDOW_MIN || window > WINDOW_MAX) return this.#fault(`a window of ${window} bytes`)
    if (version !== VERSION) {
      socket.write(welcome)
      return this.#fault(`a guest end of version ${version}, this is ${VERSION}`)
    }
    // Both halves are ours: a rejection is a bug.
    void this.#driver.startInTurns(() => {
      socket.write(welcome)
      this.#begin(socket, tag, window)
    })
  }

  /** The driver runs: its first ports come in this turn. */
  #begin(socket: Socket, tag: number, window: number): void {
    const { log, device } = this.#options
    this.#reader.expect(tag)
    const stream = {
      get held() {
        return socket.writableLength
      },
      send: (bytes: Uint8Array) => void socket.write(bytes),
    }
    this.#link = new HostLink(stream, tag, window, device)
    if (this.#starts++ < COMPLAINTS_MAX) log.info(`${this.path}: the guest end has connected`)
  }

  #endSession(): void {
    this.#link?.end()
    this.#link = undefined
    // Also one that is still being started.
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
