/**
 * The guest end's session: a console device of this process, whose ports are those of the host with a channel each
 * behind them, and our driver half in front of it over the loopback. To whoever shows its ports to programs it is a
 * device like any other. Made by guest/usernet.ts for each connection; Node's socket is its own.
 */

import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { LoopbackMachine } from '../device/attach/loopback.ts'
import { ConsoleDevice } from '../device/console.ts'
import { VirtioPci } from '../device/pci/virtio-pci.ts'
import type { PortSettings } from '../device/port-settings.ts'
import { attachLoopback } from '../driver/attach/loopback.ts'
import { ConsoleDriver } from '../driver/console.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import { describeError, VmchannelError } from '../errors.ts'
import type { Log } from '../log.ts'
import { GuestMemory } from '../mem/guest-memory.ts'
import { PORT_ID_MAX, PORT_NAME_MAX } from '../port-spec.ts'
import { WINDOW } from './channel.ts'
import { ADD_CONSOLE, ADD_KEEP, encodeHello, FRAME, FrameReader, NONCE_LEN, PAD_LEN, VERSION } from './frame.ts'
import type { Welcome } from './frame.ts'
import { Link, LinkFault, LOOPBACK_DRIVER, WINDOW_MAX, WINDOW_MIN, type LinkStream } from './link.ts'

/** The host end answers at once; a machine under load takes its time. */
const WELCOME_MS = 15_000
const DRAIN_MS = 1000
const BUFFER = 64 << 10
/** Small rings: the bytes wait in the channel. */
const QUEUE_SIZE = 64

export interface GuestEndOptions {
  log: Log
  onPort: (event: DriverPortEvent) => void
}

export class GuestEnd {
  /** Resolves when the session is over, with the reason. */
  readonly ended: Promise<string>
  readonly #socket: Socket
  readonly #options: GuestEndOptions
  readonly #reader: FrameReader
  readonly #nonce: Buffer = randomBytes(NONCE_LEN)
  #link: GuestLink | undefined
  #started: { resolve: () => void; reject: (error: Error) => void } | undefined
  #over: ((reason: string) => void) | undefined

  /** Takes a connected socket; resolves when the host has answered. Rejects with VmchannelError. */
  static async start(socket: Socket, options: GuestEndOptions): Promise<GuestEnd> {
    const end = new GuestEnd(socket, options)
    const started = new Promise<void>((resolve, reject) => (end.#started = { resolve, reject }))
    const timer = setTimeout(() => end.#finish('the host end does not answer'), WELCOME_MS)
    try {
      await started
      return end
    } finally {
      clearTimeout(timer)
    }
  }

  private constructor(socket: Socket, options: GuestEndOptions) {
    this.#socket = socket
    this.#options = options
    this.ended = new Promise((resolve) => (this.#over = resolve))
    this.#reader = new FrameReader('guest', {
      greeted: (welcome) => this.#guarded(() => this.#greeted(welcome as Welcome)),
      frame: (type, channel, payload) => this.#guarded(() => this.#link?.receive(type, channel, payload)),
      broken: (reason) => this.#finish(reason),
    })
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => this.#reader.push(chunk))
    socket.on('drain', () => this.#guarded(() => this.#link?.drained()))
    socket.on('error', (error) => this.#finish(error.message))
    socket.on('close', () => this.#finish('the connection was closed'))
    socket.write(Buffer.alloc(PAD_LEN))
    socket.write(encodeHello({ version: VERSION, window: WINDOW, nonce: this.#nonce }))
  }

  get driver(): ConsoleDriver | undefined {
    return this.#link?.driver
  }

  /** Ports that the host's device may have. */
  get maxPorts(): number {
    return this.#link?.maxPorts ?? 0
  }

  /** Says goodbye: QEMU tells the host nothing. */
  async stop(): Promise<void> {
    const link = this.#link
    const quiet = (): boolean => !link || link.driver.ports.every((port) => port.unsent === 0)
    for (const deadline = Date.now() + DRAIN_MS; !quiet() && Date.now() < deadline;)
      await new Promise((resolve) => setTimeout(resolve, 5))
    link?.bye()
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, DRAIN_MS)
      this.#socket.end(() => (clearTimeout(timer), resolve()))
    })
    this.#finish('stopped')
  }

  #greeted({ version, nonce, window, tag, maxPorts }: Welcome): void {
    // For another guest end, one that this takes the place of.
    if (!nonce.equals(this.#nonce)) return this.#link ? this.#finish('the host end has started anew') : undefined
    if (version !== VERSION) {
      const text = `the host end speaks version ${version} of usernet, this is ${VERSION}`
      this.#started?.reject(
        new VmchannelError('ERR_VMCHANNEL_CONTROL', text, { hint: 'use the same vmchannel on both sides' }),
      )
      return this.#finish(text)
    }
    if (this.#link || window < WINDOW_MIN || window > WINDOW_MAX || maxPorts < 1 || maxPorts > PORT_ID_MAX + 1)
      throw new LinkFault('a welcome that cannot be')
    const socket = this.#socket
    const stream: LinkStream = {
      get held() {
        return socket.writableLength
      },
      send: (bytes) => void socket.write(bytes),
    }
    this.#reader.expect(tag)
    this.#link = new GuestLink(stream, tag, window, maxPorts, this.#options, (reason) => this.#finish(reason))
    this.#started?.resolve()
  }

  #guarded(fn: () => void): void {
    try {
      fn()
    } catch (error) {
      if (!(error instanceof LinkFault)) throw error
      this.#finish(`the host end broke a rule: ${error.message}`)
    }
  }

  #finish(reason: string): void {
    if (!this.#over) return
    const over = this.#over
    this.#over = undefined
    this.#started?.reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', reason))
    this.#link?.end()
    this.#socket.destroy()
    over(reason)
  }
}

class GuestLink extends Link {
  readonly driver: ConsoleDriver
  readonly #device: ConsoleDevice
  readonly #log: Log
  readonly #lost: (reason: string) => void
  readonly #ports = new Map<number, number>()
  /** Ports come and go one after the other: adding one is not done at once. */
  #work: Promise<void> = Promise.resolve()

  constructor(
    stream: LinkStream,
    tag: number,
    window: number,
    maxPorts: number,
    { log, onPort }: GuestEndOptions,
    lost: (reason: string) => void,
  ) {
    super(stream, tag, window)
    this.#log = log
    this.#lost = lost
    this.#device = new ConsoleDevice({
      maxPorts,
      queueSize: QUEUE_SIZE,
      log,
      defer: setImmediate,
      onEvent: ({ event, port }) => {
        if (event !== 'guest-open' && event !== 'guest-close') return
        const number = [...this.#ports].find(([, id]) => id === port.id)?.[0]
        if (number !== undefined) this.channels.get(number)?.setLocalOpen(event === 'guest-open')
      },
    })
    const memory = new GuestMemory()
    // Here a vector costs nothing: one for each queue.
    const pci = new VirtioPci(this.#device, memory, { vectors: this.#device.queueCount + 1 })
    const { transport, pool } = attachLoopback(new LoopbackMachine(pci, memory))
    this.driver = new ConsoleDriver(transport, pool, { ...LOOPBACK_DRIVER, log, defer: setImmediate, onPort })
    // Both halves are ours: a rejection is a bug.
    // Both halves are ours: a rejection is a bug.
    void this.driver.startInTurns()
  }

  bye(): void {
    if (!this.ended) this.say(FRAME.BYE, 0)
  }

  get maxPorts(): number {
    return this.#device.maxPorts
  }

  override end(): void {
    if (this.ended) return
    this.driver.stop()
    super.end()
    this.#device.close()
  }

  protected special(type: number, number: number, payload: Buffer): void {
    if (type === FRAME.ADD) return this.#add(number, payload)
    const id = this.#ports.get(number)
    if (id === undefined) throw new LinkFault(`a frame for channel ${number}, which does not exist`)
    if (type === FRAME.REMOVE) {
      this.#ports.delete(number)
      this.channels.delete(number)
      this.#then(() => this.#device.removePort(id))
    } else if (type === FRAME.SIZE && payload.length === 4) {
      const [cols, rows] = [payload.readUInt16LE(0), payload.readUInt16LE(2)]
      if (cols > 0 && rows > 0) this.#then(() => this.#device.resizePort(id, cols, rows))
    } else throw new LinkFault(`a frame of type ${type} with ${payload.length} bytes`)
  }

  #add(number: number, payload: Buffer): void {
    if (number < this.next) throw new LinkFault(`channel ${number} for a second time`)
    if (payload.length < 4 || payload.length > 4 + PORT_NAME_MAX) throw new LinkFault('a port with an endless name')
    const id = payload.readUInt16LE(0)
    const flags = payload[2]!
    if (id >= this.#device.maxPorts || [...this.#ports.values()].includes(id)) throw new LinkFault(`port ${id} twice`)
    const name = payload.length > 4 ? payload.toString('utf8', 4) : undefined
    this.#ports.set(number, id)
    const channel = this.newChannel(number, false)
    const settings: PortSettings = {
      id,
      name,
      console: (flags & ADD_CONSOLE) !== 0,
      policy: 'block',
      buffer: BUFFER,
      onClose: flags & ADD_KEEP ? 'keep' : undefined,
      drainMs: DRAIN_MS,
    }
    this.#then(() => this.#device.addPort(settings, async (end) => channel.bind(end)))
  }

  #then(fn: () => unknown): void {
    this.#work = this.#work.then(async () => {
      if (this.ended) return
      try {
        await fn()
      } catch (error) {
        this.#log.error(describeError(error))
        this.#lost('the host end asks for a port that cannot be')
      }
    })
  }

  protected override silent(): void {
    this.#lost('the host end has fallen silent')
  }
}
