/**
 * One connected VMM: from its VERSION message to the end of the connection. Made by the server for each connection.
 *
 * All commands go through one table, all replies through one place. Whatever the VMM sends, the worst that happens is
 * the end of the connection.
 */

import { describeError, PeerFault } from '../../../errors.ts'
import { losses } from '../../../ffi/sigbus.ts'
import { hangUp } from '../../../ffi/socket-calls.ts'
import type { Log } from '../../../log.ts'
import type { GuestMemory } from '../../../mem/guest-memory.ts'
import type { Store } from '../../../store.ts'
import type { PciFunction } from '../../pci/function.ts'
import { Asks } from './asks.ts'
import { CAREFUL_DATA_XFER, CarefulStream } from './careful-stream.ts'
import { checkCoherency, type Coherency } from './coherency.ts'
import { DmaTable, type UnsharedMemory } from './dma.ts'
import { deviceInfo, irqInfo, regionInfo } from './info.ts'
import { Irqs } from './irqs.ts'
import { Regions } from './regions.ts'
import { Stream, type MessageStream } from './stream.ts'
import { parseVersion, writeVersion } from './version.ts'
import type { VmmNotes } from './vmm-notes.ts'
import {
  COMMAND,
  ERRNO,
  FLAG_ERROR,
  FLAG_NO_REPLY,
  MAX_DATA_XFER,
  MAX_MESSAGE,
  MAX_MSG_FDS,
  setHeader,
  TYPE_MASK,
  TYPE_REPLY,
  TYPE_REQUEST,
  type Handler,
  type Message,
} from './wire.ts'

/** A VMM says its version at once; who does not is none. */
const HANDSHAKE_MS = 5000

/** For a session that outlives its process: its descriptors, and what it has answered. */
export interface SessionKeep {
  readonly store: Store
  readonly notes: VmmNotes
  /** Another process had this connection before. */
  readonly resumed: boolean
}

export interface SessionOptions {
  readonly memory: GuestMemory
  readonly pci: PciFunction
  readonly log: Log
  readonly keep?: SessionKeep | undefined
  /** The VMM has introduced itself; false where the device is taken already. */
  readonly attach: () => boolean
  /** It got the device, and is about to be told so. */
  readonly attached: () => void
  readonly unshared: (memory: UnsharedMemory) => void
  /** It is over; everything is closed. */
  readonly ended: (reason: string) => void
}

/** What a person may want to see. Counts of this connection. */
export interface SessionCounters {
  requests: number
  /** Requests answered with an error, or not at all because no reply was wanted. */
  refused: number
  /** Replies that nobody asked for. */
  strayReplies: number
}

export class Session {
  readonly counters: SessionCounters = { requests: 0, refused: 0, strayReplies: 0 }
  readonly #options: SessionOptions
  readonly #fd: number
  readonly #stream: MessageStream
  readonly #dma: DmaTable
  readonly #irqs: Irqs
  readonly #asks: Asks
  readonly #handlers: readonly (Handler | undefined)[]
  readonly #reply: { bytes: Uint8Array; view: DataView }
  readonly #handshake: NodeJS.Timeout
  #attached = false
  #ended = false
  /** Why to hang up once the reply under way is sent. */
  #hangUp: string | undefined
  #toldUnshared = false
  #toldFailure = false
  #losses: number = losses()

  /** Takes over `fd`. */
  constructor(fd: number, options: SessionOptions) {
    this.#fd = fd
    this.#options = options
    const { pci, memory, log, keep } = options
    this.#attached = keep?.resumed ?? false
    const bytes = new Uint8Array(new ArrayBuffer(MAX_MESSAGE))
    this.#reply = { bytes, view: new DataView(bytes.buffer) }
    // Until the VMM has introduced itself there is nothing to keep, and nothing of another connection may be touched.
    this.#dma = new DmaTable(memory, log, keep?.store.scope('dma'))
    this.#irqs = new Irqs(pci, keep?.store.scope('irq'))
    this.#handlers = this.#table(new Regions(pci))
    this.#handshake = setTimeout(() => this.end(`no VERSION message within ${HANDSHAKE_MS / 1000} s`), HANDSHAKE_MS)
    this.#handshake.unref()
    const end = { message: (m: Message): void => this.#message(m), closed: (reason: string): void => this.end(reason) }
    this.#stream = keep ? new CarefulStream(fd, end, keep.notes, keep.resumed) : new Stream(fd, end)
    this.#asks = new Asks((data, len) => !this.#stream.blocked && this.#stream.send(data, len))
    if (!this.#attached) return
    clearTimeout(this.#handshake)
    this.#asks.limit = keep!.notes.dataLimit
    pci.connectIrq(this.#irqs)
    pci.resume?.()
  }

  get attached(): boolean {
    return this.#attached
  }

  unsharedAt(address: number): UnsharedMemory | undefined {
    return this.#dma.unsharedAt(address)
  }

  checkCoherent(address: number, len: number): Promise<Coherency> {
    return checkCoherency(this.#asks, this.#options.memory, address, len)
  }

  /** Ends the connection and gives everything back. */
  end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#handshake)
    const { pci, log, keep } = this.#options
    // The keeper's copy must not keep the VMM waiting.
    if (keep) hangUp(this.#fd)
    this.#stream.close()
    if (this.#attached)
      try {
        pci.connectIrq(undefined)
        pci.reset()
      } catch (error) {
        log.error(`the device failed while it was detached: ${describeError(error)}`)
      }
    this.#irqs.close()
    this.#dma.close()
    this.#asks.close()
    if (this.#attached) keep?.store.clear()
    if (this.#attached) keep?.notes.clear()
    this.#options.ended(reason)
  }

  #table(regions: Regions): readonly (Handler | undefined)[] {
    const { pci } = this.#options
    const table = new Array<Handler | undefined>(32).fill(undefined)
    table[COMMAND.DMA_MAP] = (message) => this.#dma.map(message)
    table[COMMAND.DMA_UNMAP] = (message, reply) => this.#dma.unmap(message, reply)
    table[COMMAND.DEVICE_GET_INFO] = (message, reply) => {
      this.#lookForUnshared()
      return deviceInfo(message, reply)
    }
    table[COMMAND.DEVICE_GET_REGION_INFO] = regionInfo(regions.sizes)
    table[COMMAND.DEVICE_GET_IRQ_INFO] = irqInfo(pci)
    table[COMMAND.DEVICE_SET_IRQS] = (message) => {
      this.#lookForUnshared()
      return this.#irqs.set(message)
    }
    table[COMMAND.REGION_READ] = (message, reply) => regions.read(message, reply)
    table[COMMAND.REGION_WRITE] = (message, reply) => regions.write(message, reply)
    table[COMMAND.DEVICE_RESET] = () => {
      pci.reset()
      return 0
    }
    return table
  }

  #message(message: Message): void {
    const type = message.flags & TYPE_MASK
    if (type === TYPE_REPLY) {
      if (!this.#asks.reply(message)) this.counters.strayReplies++
      return
    }
    if (type !== TYPE_REQUEST) return this.end(`a message of type ${type}`)
    this.counters.requests++
    const result = this.#attached ? this.#dispatch(message) : this.#introduce(message)
    this.#answer(message, result)
    if (this.#losses !== losses()) this.#lookForLost()
    if (this.#hangUp !== undefined) this.end(this.#hangUp)
  }

  #dispatch(message: Message): number {
    const handler = this.#handlers[message.command]
    if (!handler) return message.command === COMMAND.VERSION ? -ERRNO.EINVAL : -ERRNO.ENOTTY
    if (message.fds.length > MAX_MSG_FDS) return -ERRNO.EINVAL
    try {
      return handler(message, this.#reply)
    } catch (error) {
      if (!this.#toldFailure) this.#options.log.error(`the device failed at a request: ${describeError(error)}`)
      this.#toldFailure = true
      return error instanceof PeerFault ? -ERRNO.EINVAL : -ERRNO.EIO
    }
  }

  /** The first request has to be VERSION. */
  #introduce(message: Message): number {
    const version =
      message.command === COMMAND.VERSION ? parseVersion(message) : `command ${message.command} before VERSION`
    if (typeof version === 'string') {
      this.#hangUp = version
      return -ERRNO.EINVAL
    }
    if (!this.#options.attach()) {
      this.#hangUp = 'another VMM is attached'
      return -ERRNO.EBUSY
    }
    clearTimeout(this.#handshake)
    this.#attached = true
    this.#asks.limit = version.maxDataXfer
    const { keep } = this.#options
    keep?.store.keep('connection', [this.#fd])
    if (keep) keep.notes.dataLimit = version.maxDataXfer
    this.#options.pci.connectIrq(this.#irqs)
    this.#options.attached()
    return writeVersion(this.#reply, keep ? CAREFUL_DATA_XFER : MAX_DATA_XFER)
  }

  /** The one place that replies. */
  #answer(message: Message, result: number): void {
    if (result < 0) this.counters.refused++
    if ((message.flags & FLAG_NO_REPLY) !== 0) return
    const { bytes, view } = this.#reply
    const size =
      result < 0
        ? setHeader(view, message.id, message.command, 0, TYPE_REPLY | FLAG_ERROR, -result)
        : setHeader(view, message.id, message.command, result, TYPE_REPLY)
    this.#stream.reply(message.id, bytes, size)
  }

  /** Memory of some VM of this process has gone. */
  #lookForLost(): void {
    this.#losses = losses()
    if (!this.#dma.lost) return
    this.#options.log.error(
      'the file behind guest memory was cut short by somebody: the device ends for this VM; memory-backend-memfd is sealed against that',
    )
    this.#hangUp = 'guest memory has gone'
  }

  /** QEMU asks for device info after it has mapped all of guest RAM; others map it later, but before interrupts. */
  #lookForUnshared(): void {
    const found = this.#toldUnshared ? undefined : this.#dma.nothingShared()
    if (!found) return
    this.#toldUnshared = true
    this.#options.unshared(found)
  }
}
