/**
 * The attached VMM: its requests from the accepted VERSION message on. Made by the server when a VMM attaches, one at a
 * time; owns the memory map, the interrupt lines and the ledger's notes until it is closed.
 *
 * All commands go through one table, all replies through one place. Whatever the VMM sends, the worst that happens is
 * the end of the connection.
 */

import { describeError, PeerFault } from '../../../errors.ts'
import { losses } from '../../../ffi/sigbus.ts'
import type { Log } from '../../../log.ts'
import type { GuestMemory } from '../../../mem/guest-memory.ts'
import type { Store } from '../../../store.ts'
import type { PciFunction } from '../../pci/function.ts'
import { Asks } from './asks.ts'
import { CAREFUL_DATA_XFER } from './careful-stream.ts'
import { checkCoherency, type Coherency } from './coherency.ts'
import { DmaTable, type UnsharedMemory } from './dma.ts'
import { deviceInfo, irqInfo, regionInfo } from './info.ts'
import { Irqs } from './irqs.ts'
import { Regions } from './regions.ts'
import type { MessageStream } from './stream.ts'
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
  readonly unshared: (memory: UnsharedMemory) => void
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
  readonly counters: SessionCounters = { requests: 1, refused: 0, strayReplies: 0 }
  /** Most data in one message of the VMM: what it is told. */
  readonly maxDataXfer: number
  readonly #options: SessionOptions
  readonly #stream: MessageStream
  readonly #dma: DmaTable
  readonly #irqs: Irqs
  readonly #asks: Asks
  readonly #handlers: readonly (Handler | undefined)[]
  readonly #reply: { bytes: Uint8Array; view: DataView }
  /** Why to hang up once the reply under way is sent. */
  #hangUp: string | undefined
  #toldUnshared = false
  #toldFailure = false
  #losses: number = losses()

  /** The VMM at `fd`, to be asked for at most `limit` bytes at once, has the device from here on. */
  constructor(fd: number, stream: MessageStream, limit: number, options: SessionOptions) {
    this.#options = options
    this.#stream = stream
    const { pci, memory, log, keep } = options
    const bytes = new Uint8Array(new ArrayBuffer(MAX_MESSAGE))
    this.#reply = { bytes, view: new DataView(bytes.buffer) }
    this.maxDataXfer = keep ? CAREFUL_DATA_XFER : MAX_DATA_XFER
    if (keep && !keep.resumed) {
      keep.notes.clear()
      keep.notes.dataLimit = limit
      keep.store.keep('connection', [fd])
    }
    if (keep) stream.note?.(keep.notes, keep.resumed)
    this.#dma = new DmaTable(memory, log, keep?.store.scope('dma'))
    this.#irqs = new Irqs(pci, keep?.store.scope('irq'))
    this.#handlers = this.#table(new Regions(pci))
    this.#asks = new Asks((data, len) => !stream.blocked && stream.send(data, len))
    this.#asks.limit = limit
    pci.connectIrq(this.#irqs)
    if (keep?.resumed && this.incomplete === undefined) pci.resume?.()
  }

  /** Why it cannot go on where the process before left it. */
  get incomplete(): string | undefined {
    return this.#dma.incomplete
  }

  unsharedAt(address: number): UnsharedMemory | undefined {
    return this.#dma.unsharedAt(address)
  }

  checkCoherent(address: number, len: number): Promise<Coherency> {
    return checkCoherency(this.#asks, this.#options.memory, address, len)
  }

  /** The connection is over: gives everything back. Called once. */
  close(): void {
    const { pci, log, keep } = this.#options
    try {
      pci.connectIrq(undefined)
      pci.reset()
    } catch (error) {
      log.error(`the device failed while it was detached: ${describeError(error)}`)
    }
    this.#irqs.close()
    this.#dma.close()
    this.#asks.close()
    keep?.store.clear()
    keep?.notes.clear()
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

  /** One message of the VMM; returns why to hang up, where that is to be. */
  message(message: Message): string | undefined {
    const type = message.flags & TYPE_MASK
    if (type === TYPE_REPLY) {
      if (!this.#asks.reply(message)) this.counters.strayReplies++
      return undefined
    }
    if (type !== TYPE_REQUEST) return `a message of type ${type}`
    this.counters.requests++
    this.#answer(message, this.#dispatch(message))
    if (this.#losses !== losses()) this.#lookForLost()
    return this.#hangUp
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
