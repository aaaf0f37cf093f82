/**
 * Keeps a clipboard of the host and a guest's in step: who owned a selection last, owns it on both sides. The library's
 * `connectClipboard` and `vmchannel clipboard` make one.
 *
 * Nothing comes back as an echo: a back end does not report what it was given, and spice-vdagent does not grab what we
 * grabbed. Content moves when somebody wants it, as far as the back end can wait.
 */

import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { wait, type WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { AgentSession } from './agent.ts'
import type { ClipboardBackend, ClipboardOffer } from './backend.ts'
import { MIME_TYPES, type MimeType, type Selection, SELECTIONS } from './wire.ts'

const TEXT: MimeType = 'text/plain;charset=utf-8'
/** A program of the host that does not give its content must not hold up the one of the guest for longer. */
const READ_MS = 10_000
const RETRY_MS = 1000
const OVERTAKEN_MS = 300
export const LIMIT: number = 32 << 20

export type Direction = 'both' | 'to-guest' | 'to-host'

export type ClipboardEvent =
  /** The agent is there: now, or again. */
  | { event: 'agent' }
  /** Nobody answers any more; it is tried again. */
  | { event: 'lost'; why: string }
  /** One side has copied something; the other one can paste it. No types: it was let go. */
  | { event: 'copied'; from: 'guest' | 'host'; selection: Selection; types: readonly MimeType[] }
  /** Content that was not handed over. */
  | { event: 'refused'; from: 'guest' | 'host'; selection: Selection; why: string }

export interface SyncOptions {
  backend: ClipboardBackend
  /** Default both. */
  direction?: Direction | undefined
  /** Bytes of the largest content; default 32 MiB. */
  limit?: number | undefined
  /** Only these; default all that both sides know. */
  types?: readonly MimeType[] | undefined
  /** The selection that a middle click pastes, too. */
  primary?: boolean | undefined
  /** How long to try again once the port has gone; default 30 s, 0: not at all. */
  reconnect?: number | undefined
  onEvent?: ((event: ClipboardEvent) => void) | undefined
}

export interface ClipboardCounters {
  toGuest: { copies: number; contents: number; bytes: number; refused: number }
  toHost: { copies: number; contents: number; bytes: number; refused: number }
}

export class ClipboardSync {
  readonly counters: ClipboardCounters = {
    toGuest: { copies: 0, contents: 0, bytes: 0, refused: 0 },
    toHost: { copies: 0, contents: 0, bytes: 0, refused: 0 },
  }
  /** Resolves when it was closed; rejects when the port or the host's clipboard has gone for good. */
  readonly closed: Promise<void>
  readonly #backend: ClipboardBackend
  readonly #open: () => Promise<Duplex>
  readonly #options: SyncOptions
  readonly #limit: number
  readonly #selections: readonly Selection[]
  readonly #types: readonly MimeType[]
  readonly #hostOffers = new Map<Selection, ClipboardOffer>()
  /** What the guest offers now; by it an offer knows whether it is still the one. */
  readonly #guestOffers = new Map<Selection, ClipboardOffer>()
  readonly #waiting = new Set<() => void>()
  #settle!: { resolve: () => void; reject: (error: Error) => void }
  #session: AgentSession | undefined
  #retry: NodeJS.Timeout | undefined
  #over = false
  /** Said once, however often a peer that is none is tried again. */
  #lostWhy = ''

  /** @internal connectClipboard makes one. `open` gives the host's end of the agent's port, each time anew. */
  static async start(open: () => Promise<Duplex>, options: SyncOptions): Promise<ClipboardSync> {
    const sync = new ClipboardSync(open, options)
    const stream = await open()
    try {
      await options.backend.start(sync.#selections, sync.#limit, {
        changed: (selection, offer) => sync.#hostChanged(selection, offer),
        failed: (error) => void sync.#end(error),
      })
    } catch (error) {
      stream.destroy()
      await sync.#end()
      throw error
    }
    sync.#begin(stream)
    return sync
  }

  private constructor(open: () => Promise<Duplex>, options: SyncOptions) {
    this.#open = open
    this.#options = options
    this.#backend = options.backend
    this.#limit = options.limit ?? LIMIT
    this.#selections = options.primary ? SELECTIONS : ['clipboard']
    const wanted = options.types ?? MIME_TYPES
    this.#types = MIME_TYPES.filter((type) => wanted.includes(type) && this.#backend.types.includes(type))
    this.closed = new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
    this.closed.catch(() => {}) // nobody has to look
  }

  /** Whether the agent answers. */
  get connected(): boolean {
    return this.#session?.ready ?? false
  }

  /** Until the agent answers: it does when somebody is logged in to a desktop. */
  ready(options: WaitOptions = {}): Promise<void> {
    return wait<void>('waiting for spice-vdagent', options, (resolve, reject) => {
      if (this.connected) resolve()
      const look = (): void => {
        if (this.connected) resolve()
      }
      this.#waiting.add(look)
      this.closed.then(
        () => reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the clipboard was closed')),
        (error: Error) => reject(error),
      )
      return () => void this.#waiting.delete(look)
    })
  }

  /** Ends it; what the guest has is no longer offered on the host, and the other way round. */
  close(): Promise<void> {
    return this.#end()
  }

  #begin(stream: Duplex): void {
    const session = new AgentSession(stream, this.#limit, {
      ready: (again) => this.#agentReady(again),
      grabbed: (selection, types) => this.#guestGrabbed(session, selection, types),
      released: (selection) => this.#guestReleased(selection),
      wanted: (selection, type) => this.#wanted(session, selection, type),
      closed: (reason) => this.#lost(reason),
    })
    this.#session = session
  }

  #agentReady(again: boolean): void {
    // An agent that has started again owns nothing of what it did.
    for (const selection of this.#guestOffers.keys()) this.#guestReleased(selection)
    for (const look of this.#waiting) look()
    this.#lostWhy = ''
    if (!again) this.#say({ event: 'agent' })
    for (const [selection, offer] of this.#hostOffers) this.#session?.grab(selection, offer.types)
  }

  #hostChanged(selection: Selection, offer: ClipboardOffer | undefined): void {
    if (this.#over || this.#options.direction === 'to-host' || !this.#selections.includes(selection)) return
    const types = offer ? this.#types.filter((type) => offer.types.includes(type)) : []
    const known = this.#hostOffers.delete(selection)
    if (types.length === 0) {
      if (!known) return
      this.#session?.release(selection)
      return this.#say({ event: 'copied', from: 'host', selection, types })
    }
    this.#guestOffers.delete(selection)
    this.#hostOffers.set(selection, { types, read: (type) => offer!.read(type) })
    this.counters.toGuest.copies++
    this.#session?.grab(selection, types)
    this.#say({ event: 'copied', from: 'host', selection, types })
  }

  async #wanted(session: AgentSession, selection: Selection, type: MimeType): Promise<Uint8Array | undefined> {
    const offer = this.#hostOffers.get(selection)
    const counters = this.counters.toGuest
    try {
      if (!offer?.types.includes(type))
        throw new VmchannelError('ERR_VMCHANNEL_CLIPBOARD', `the host does not offer ${type}`)
      let bytes = await wait<Uint8Array>(`reading ${type}`, { timeout: READ_MS }, (resolve, reject) => {
        offer.read(type).then(resolve, reject)
        return () => {}
      })
      if (type === TEXT && session.crlf) bytes = replaceBytes(bytes, /\r?\n/g, '\r\n')
      if (bytes.length > this.#limit)
        throw new VmchannelError('ERR_VMCHANNEL_CLIPBOARD', `${type} is larger than the limit of ${this.#limit} bytes`)
      counters.contents++
      counters.bytes += bytes.length
      return bytes
    } catch (error) {
      counters.refused++
      this.#say({ event: 'refused', from: 'host', selection, why: (error as Error).message })
      return undefined
    }
  }

  #guestGrabbed(session: AgentSession, selection: Selection, all: readonly MimeType[]): void {
    // Whatever becomes of it, the guest's programs no longer have what the host offered.
    this.#hostOffers.delete(selection)
    const types = this.#types.filter((type) => all.includes(type))
    if (this.#over || this.#options.direction === 'to-guest' || !this.#selections.includes(selection)) return
    if (types.length === 0) return this.#guestReleased(selection)
    const offer: ClipboardOffer = { types, read: (type) => this.#fetch(session, selection, type, offer) }
    this.#guestOffers.set(selection, offer)
    this.counters.toHost.copies++
    this.#say({ event: 'copied', from: 'guest', selection, types })
    this.#hand(selection, offer)
  }

  async #fetch(session: AgentSession, selection: Selection, type: MimeType, by: ClipboardOffer): Promise<Uint8Array> {
    const counters = this.counters.toHost
    try {
      let bytes = await session.request(selection, type)
      if (type === TEXT) {
        bytes = withoutZeros(bytes)
        if (session.crlf) bytes = replaceBytes(bytes, /\r\n/g, '\n')
      }
      counters.contents++
      counters.bytes += bytes.length
      return bytes
    } catch (error) {
      counters.refused++
      void this.#refused(selection, by, error as Error)
      throw error
    }
  }

  /** What another program of the guest or the host has overtaken is no loss; the agent may refuse before it says so. */
  async #refused(selection: Selection, by: ClipboardOffer, { message: why }: Error): Promise<void> {
    await sleep(OVERTAKEN_MS, undefined, { ref: false })
    if (this.#guestOffers.get(selection) === by) this.#say({ event: 'refused', from: 'guest', selection, why })
  }

  #guestReleased(selection: Selection): void {
    if (!this.#guestOffers.delete(selection)) return
    this.#say({ event: 'copied', from: 'guest', selection, types: [] })
    this.#hand(selection, undefined)
  }

  #hand(selection: Selection, offer: ClipboardOffer | undefined): void {
    this.#backend.offer(selection, offer).catch((error: unknown) => {
      // What the guest did not give has been told.
      if (offer && !(error instanceof VmchannelError && error.code === 'ERR_VMCHANNEL_CLIPBOARD'))
        void this.#refused(selection, offer, error as Error)
    })
  }

  #lost(reason: VmchannelError): void {
    if (this.#over) return
    this.#session = undefined
    for (const selection of this.#guestOffers.keys()) this.#guestReleased(selection)
    const patience = this.#options.reconnect ?? 30_000
    if (patience === 0) return void this.#end(reason)
    if (reason.message !== this.#lostWhy) this.#say({ event: 'lost', why: reason.message })
    this.#lostWhy = reason.message
    const deadline = Date.now() + patience
    const again = async (): Promise<void> => {
      try {
        const stream = await this.#open()
        if (this.#over) stream.destroy()
        else this.#begin(stream)
      } catch (error) {
        if (this.#over) return
        if (Date.now() >= deadline) return void this.#end(error as Error)
        this.#retry = setTimeout(() => void again(), RETRY_MS)
      }
    }
    this.#retry = setTimeout(() => void again(), RETRY_MS)
  }

  async #end(error?: Error): Promise<void> {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#retry)
    this.#session?.close()
    await this.#backend.close().catch(() => {})
    if (error) this.#settle.reject(error)
    else this.#settle.resolve()
  }

  #say(event: ClipboardEvent): void {
    this.#options.onEvent?.(event)
  }
}

/** A text that is no UTF-8, or is cut within a character, keeps its bytes. */
function replaceBytes(bytes: Uint8Array, from: RegExp, to: string): Buffer {
  return Buffer.from(Buffer.from(bytes).toString('latin1').replaceAll(from, to), 'latin1')
}

/** Some agents end a text as C does. */
export function withoutZeros(bytes: Buffer): Buffer {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return bytes.subarray(0, end)
}
