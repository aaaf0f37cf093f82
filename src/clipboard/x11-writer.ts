/**
 * Answers programs of an X11 display that paste what the guest has: at once, or in parts (INCR) where it is large. Every
 * request gets an answer, if only a refusal. Used by x11-clipboard.ts.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { ClipboardOffer } from './backend.ts'
import type { MimeType } from './wire.ts'
import type { TypeAtoms } from './x11-atoms.ts'
import { EVENT, EVENT_MASK, PROPERTY_CHANGE, REQUEST } from './x11-numbers.ts'
import { padded, u32, type XServer } from './x11-server.ts'

const DELETED = 1
/** Well below what any server takes in one request (256 KiB less a header). */
const PART = 128 << 10
/** Programs that take their content at the same time; one that stops taking it is forgotten. */
const AT_ONCE = 32
const STALL_MS = 30_000
const FINISH_MS = 1000
const FINISH_LOOK_MS = 10

interface Request {
  time: number
  requestor: number
  selection: number
  target: number
  property: number
}

interface Transfer {
  requestor: number
  property: number
  target: number
  rest: Buffer
  timer: NodeJS.Timeout
}

export class X11Writer {
  readonly #server: XServer
  readonly #types: TypeAtoms
  readonly #offer: (selection: number) => ClipboardOffer | undefined
  readonly #transfers = new Map<string, Transfer>()
  /** The content that was asked for last: it is often wanted twice. */
  #last: { offer: ClipboardOffer; type: MimeType; bytes: Promise<Uint8Array> } | undefined
  #waiting = 0

  constructor(server: XServer, types: TypeAtoms, offer: (selection: number) => ClipboardOffer | undefined) {
    this.#server = server
    this.#types = types
    this.#offer = offer
  }

  take(event: Buffer): void {
    const code = event[0]! & 0x7f
    if (code === EVENT.selectionRequest) {
      const [time, , requestor, selection, target, property] = [4, 8, 12, 16, 20, 24].map((at) =>
        event.readUInt32LE(at),
      )
      void this.#answer({
        ...{ time: time!, requestor: requestor!, selection: selection!, target: target! },
        property: property || target!, // a client of long ago has none
      })
    }
    if (code !== EVENT.propertyNotify || event[16] !== DELETED) return
    const transfer = this.#transfers.get(`${event.readUInt32LE(4)} ${event.readUInt32LE(8)}`)
    if (transfer) this.#next(transfer)
  }

  /** Until nobody is in the middle of a content, or for a while: whoever takes it in parts would wait for ever. */
  async finish(): Promise<void> {
    const deadline = Date.now() + FINISH_MS
    while ((this.#transfers.size > 0 || this.#waiting > 0) && Date.now() < deadline) await sleep(FINISH_LOOK_MS)
  }

  async #answer(request: Request): Promise<void> {
    const { requestor, property, target } = request
    const offer = this.#offer(request.selection)
    const bytes = offer ? await this.#content(offer, target).catch(() => undefined) : undefined
    if (!bytes) return this.#notify(request, 0)
    if (Array.isArray(bytes)) this.#set(requestor, property, this.#types.atom, 32, u32(...bytes))
    else if (bytes.length <= PART) this.#set(requestor, property, this.#valueType(target), 8, bytes)
    else if (!this.#begin(request, bytes)) return this.#notify(request, 0)
    this.#notify(request, property)
  }

  /** Names of types, or content; undefined where it is none of ours. */
  async #content(offer: ClipboardOffer, target: number): Promise<number[] | Buffer | undefined> {
    if (target === this.#types.targets)
      return [this.#types.targets, ...offer.types.flatMap((type) => this.#types.names(type))]
    const type = this.#types.type(target)
    if (type === undefined || !offer.types.includes(type) || this.#waiting >= AT_ONCE) return undefined
    if (this.#last?.offer !== offer || this.#last.type !== type) {
      const read = { offer, type, bytes: offer.read(type) }
      this.#last = read
      read.bytes.catch(() => this.#last === read && (this.#last = undefined))
    }
    this.#waiting++
    try {
      const bytes = Buffer.from(await this.#last.bytes)
      return target === this.#types.string ? Buffer.from(bytes.toString(), 'latin1') : bytes
    } finally {
      this.#waiting--
    }
  }

  #valueType(target: number): number {
    return this.#types.type(target)?.startsWith('text/') && target !== this.#types.string
      ? this.#textType(target)
      : target
  }

  /** TEXT is a question, and no type that an answer may have. */
  #textType(target: number): number {
    return target === this.#types.names('text/plain;charset=utf-8').at(-1) ? this.#types.utf8 : target
  }

  #begin({ requestor, property, target }: Request, bytes: Buffer): boolean {
    const key = `${requestor} ${property}`
    if (this.#transfers.size >= AT_ONCE && !this.#transfers.has(key)) return false
    clearTimeout(this.#transfers.get(key)?.timer)
    const timer = setTimeout(() => this.#transfers.delete(key), STALL_MS)
    timer.unref()
    this.#transfers.set(key, { requestor, property, target: this.#valueType(target), rest: bytes, timer })
    this.#server.send(REQUEST.changeWindowAttributes, 0, u32(requestor, EVENT_MASK, PROPERTY_CHANGE))
    this.#set(requestor, property, this.#types.incr, 32, u32(bytes.length))
    return true
  }

  /** The part before has been taken; the last one is empty. */
  #next(transfer: Transfer): void {
    const part = transfer.rest.subarray(0, PART)
    transfer.rest = transfer.rest.subarray(PART)
    transfer.timer.refresh()
    this.#set(transfer.requestor, transfer.property, transfer.target, 8, part)
    if (part.length > 0) return
    clearTimeout(transfer.timer)
    this.#transfers.delete(`${transfer.requestor} ${transfer.property}`)
  }

  #set(window: number, property: number, type: number, format: 8 | 32, bytes: Buffer): void {
    const head = u32(window, property, type, format, bytes.length / (format / 8))
    this.#server.send(REQUEST.changeProperty, 0, Buffer.concat([head, padded(bytes)]))
  }

  #notify({ time, requestor, selection, target }: Request, property: number): void {
    const event = Buffer.concat([
      u32(EVENT.selectionNotify, time, requestor, selection, target, property),
      Buffer.alloc(8),
    ])
    this.#server.send(REQUEST.sendEvent, 0, Buffer.concat([u32(requestor, 0), event]))
  }
}
