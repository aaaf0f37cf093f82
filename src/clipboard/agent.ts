/**
 * The conversation with a guest's spice-vdagent over its port: capabilities, who owns which selection, content on request.
 * sync.ts joins it with a clipboard of the host.
 *
 * Serials settle who owns a selection when both sides grab at the same moment: each side counts grabs, an older one than
 * the own count is dropped, the host wins a tie. The guest starts again from 0 whenever it gets capabilities that ask for
 * an answer, so we do too, and grab nothing until that answer is there.
 */

import type { Duplex } from 'node:stream'
import { PeerFault, VmchannelError } from '../errors.ts'
import { Outbox } from './outbox.ts'
import {
  CAPABILITY,
  type ClipboardMessage,
  decodeCapabilities,
  decodeClipboard,
  encodeCapabilities,
  encodeGrab,
  encodeRelease,
  encodeTyped,
  MESSAGE,
  type Message,
  MessageReader,
  type MimeType,
  type Selection,
  SELECTIONS,
  typeNumber,
} from './wire.ts'

const OWN = [
  ...[CAPABILITY.byDemand, CAPABILITY.selection, CAPABILITY.maxClipboard],
  ...[CAPABILITY.noReleaseOnRegrab, CAPABILITY.grabSerial],
]
/** Requests of the guest that wait for the host's clipboard; beyond it the guest is not read. */
const REQUESTS_MAX = 16
const ANSWER_MS = 60_000
/** How long the answer to a request is waited for that nobody wants any more, so that it is not taken for the next one. */
const STALE_MS = 3000
/** A message that stops in the middle: the daemon in the guest has died, and the next bytes are another one's. */
const STALL_MS = 5000
/**
 * A question may be lost: what a guest has not read when its daemon closes the port, and that does so whenever the host has.
 * One that starts later asks by itself.
 */
const ASK_AGAIN_MS: readonly number[] = [1000, 3000, 9000, 27_000]

export interface AgentEvents {
  /**
   * Capabilities are exchanged, and the guest knows nothing of our selections. `again`: it was ready, and has read another
   * question of ours.
   */
  ready(again: boolean): void
  grabbed(selection: Selection, types: readonly MimeType[]): void
  released(selection: Selection): void
  /** Content that a program in the guest wants; undefined refuses it. Must settle. */
  wanted(selection: Selection, type: MimeType): Promise<Uint8Array | undefined>
  closed(reason: VmchannelError): void
}

interface Request {
  type: MimeType
  settle: ((bytes: Buffer | undefined, why?: string) => void) | undefined
  timer: NodeJS.Timeout | undefined
}

export class AgentSession {
  readonly #stream: Duplex
  readonly #events: AgentEvents
  readonly #limit: number
  readonly #outbox: Outbox
  readonly #reader: MessageReader
  readonly #serial: Record<Selection, number> = { clipboard: 0, primary: 0 }
  readonly #held = new Set<Selection>()
  readonly #requests: Record<Selection, Request[]> = { clipboard: [], primary: [] }
  #wanted: Promise<void> = Promise.resolve()
  #wantedCount = 0
  #has: (bit: number) => boolean = () => false
  #awaiting = true
  #askAgain: NodeJS.Timeout | undefined
  #stall: NodeJS.Timeout | undefined
  #over = false
  /** Contents of the guest that were larger than the limit, answers that nobody waited for. */
  readonly dropped: { oversized: number; stale: number } = { oversized: 0, stale: 0 }

  /** Takes the stream over, and asks for the agent's capabilities. */
  constructor(stream: Duplex, limit: number, events: AgentEvents) {
    this.#stream = stream
    this.#limit = limit
    this.#events = events
    this.#reader = new MessageReader(limit)
    this.#outbox = new Outbox(stream, () => this.#flow())
    stream.on('data', (bytes: Buffer) => this.#take(bytes))
    stream.on('error', (cause) => this.#end('the connection to the port broke', cause))
    stream.on('end', () => this.#end('the port was closed'))
    stream.on('close', () => this.#end('the port was closed'))
    this.#greet()
    stream.resume()
  }

  get ready(): boolean {
    return !this.#awaiting && !this.#over
  }

  /** Whether the guest wants CR LF in its texts. */
  get crlf(): boolean {
    return this.#has(CAPABILITY.lineEndCrlf)
  }

  /** Whether the agent has this selection: without the capability there is the clipboard alone. */
  knows(selection: Selection): boolean {
    return selection === 'clipboard' || this.#has(CAPABILITY.selection)
  }

  /** The host owns the selection. */
  grab(selection: Selection, types: readonly MimeType[]): void {
    if (!this.ready || !this.knows(selection)) return
    const release = this.#held.has(selection) && !this.#has(CAPABILITY.noReleaseOnRegrab)
    if (release) this.release(selection)
    this.#held.add(selection)
    const encode = (): [number, Buffer] => [
      MESSAGE.grab,
      encodeGrab(this.#dialect, selection, this.#serial[selection]++, types),
    ]
    void this.#outbox.send(encode, `grab ${selection}`)
  }

  /** Nobody on the host owns it any more. */
  release(selection: Selection): void {
    if (!this.ready || !this.#held.delete(selection)) return
    void this.#outbox.send(() => [MESSAGE.release, encodeRelease(this.#dialect, selection)], `release ${selection}`)
  }

  /** What the guest has in a selection. Rejects where it does not give it, gives too much, or has let go of it. */
  request(selection: Selection, type: MimeType): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const refuse = (why: string): void =>
        reject(new VmchannelError('ERR_VMCHANNEL_CLIPBOARD', `the guest's ${selection} as ${type}: ${why}`))
      if (!this.ready) return refuse('no agent is there')
      const list = this.#requests[selection]
      if (list.length >= REQUESTS_MAX) return refuse('too many requests wait already')
      const settle = (bytes: Buffer | undefined, why?: string): void => (bytes ? resolve(bytes) : refuse(why!))
      list.push({ type, settle, timer: undefined })
      if (list.length === 1) this.#ask(selection)
    })
  }

  close(): void {
    this.#end('it was closed here')
  }

  get #dialect(): { selection: boolean; serial: boolean } {
    return { selection: this.#has(CAPABILITY.selection), serial: this.#has(CAPABILITY.grabSerial) }
  }

  /** Asks for the agent's capabilities, and again where no answer comes. */
  #greet(now = true, tries = 0): void {
    if (now) this.#sendCapabilities(true)
    const pause = ASK_AGAIN_MS[tries]
    clearTimeout(this.#askAgain)
    if (pause !== undefined) this.#askAgain = setTimeout(() => this.#greet(true, tries + 1), pause)
  }

  #sendCapabilities(request: boolean): void {
    void this.#outbox.send(() => [MESSAGE.capabilities, encodeCapabilities(request, OWN)])
  }

  #take(bytes: Buffer): void {
    try {
      this.#reader.push(bytes, (message) => this.#over || this.#message(message))
    } catch (error) {
      if (!(error instanceof PeerFault)) throw error
      return this.#end(`the guest said what spice-vdagent does not: ${error.message}`)
    }
    this.#flow()
  }

  /** Reads on, or waits until there is room for more answers. */
  #flow(): void {
    clearTimeout(this.#stall)
    if (this.#over) return
    if (this.#outbox.full || this.#wantedCount >= REQUESTS_MAX) return void this.#stream.pause()
    if (this.#reader.midway)
      this.#stall = setTimeout(() => this.#end(`a message stopped in the middle for ${STALL_MS} ms`), STALL_MS)
    if (this.#stream.isPaused()) this.#stream.resume()
  }

  #message(message: Message): void {
    if (message.type === MESSAGE.capabilities) return this.#capabilities(message.data)
    const said = decodeClipboard(this.#dialect, message)
    // A grab from before our question, made for whoever was here last: the agent lets go of it when it is asked.
    if (!said || this.#awaiting) return
    switch (said.what) {
      case 'grab':
        return this.#grabbed(said.selection, said.serial, said.types)
      case 'release':
        this.#stale(said.selection, 'the guest has let go of it')
        return this.#events.released(said.selection)
      case 'request':
        return this.#answer(said)
      case 'data':
        return this.#data(said)
    }
  }

  #capabilities(data: Buffer): void {
    const { request, has } = decodeCapabilities(data)
    this.#has = has
    if (!has(CAPABILITY.byDemand)) throw new PeerFault('it cannot give its clipboard on demand: it is older than 0.6')
    clearTimeout(this.#askAgain)
    for (const selection of SELECTIONS) this.#stale(selection, 'the agent has started again')
    if (!request) {
      const again = !this.#awaiting
      this.#awaiting = false
      for (const selection of SELECTIONS) this.#serial[selection] = 0
      this.#held.clear()
      if (has(CAPABILITY.maxClipboard)) {
        const max = Buffer.alloc(4)
        max.writeInt32LE(Math.min(this.#limit, 0x7fffffff))
        void this.#outbox.send(() => [MESSAGE.maxClipboard, max])
      }
      return this.#events.ready(again)
    }
    // An agent that has just started. Our question may still lie in the port before it; where it was answered, it is new.
    this.#sendCapabilities(false)
    this.#greet(!this.#awaiting)
    this.#awaiting = true
  }

  #grabbed(selection: Selection, serial: number | undefined, types: readonly MimeType[]): void {
    if (serial !== undefined) {
      if (serial < this.#serial[selection]) return
      this.#serial[selection] = (serial + 1) >>> 0
    }
    this.#held.delete(selection)
    this.#stale(selection, 'another program of the guest owns it now')
    this.#events.grabbed(selection, types)
  }

  #answer({ selection, type, number }: ClipboardMessage & { what: 'request' }): void {
    this.#wantedCount++
    const known = typeNumber(type) === number && this.#held.has(selection)
    // One after the other, and the next when this one is sent: each may be as large as the limit.
    this.#wanted = this.#wanted.then(async () => {
      const bytes = known && !this.#over ? await this.#events.wanted(selection, type) : undefined
      if (this.#over) return
      // Content of no bytes, under the type that was asked for, is the one refusal that does not leave a program waiting.
      const head = encodeTyped(this.#dialect, selection, number)
      await this.#outbox.send(() => [MESSAGE.clipboard, head, bytes ?? new Uint8Array()])
      this.#wantedCount--
      this.#flow()
    })
  }

  #ask(selection: Selection): void {
    const request = this.#requests[selection][0]
    if (!request) return
    request.timer = setTimeout(() => this.#answered(selection, undefined, 'it does not answer'), ANSWER_MS)
    const body = encodeTyped(this.#dialect, selection, typeNumber(request.type))
    void this.#outbox.send(() => [MESSAGE.request, body])
  }

  #data({ selection, number, bytes, cut }: ClipboardMessage & { what: 'data' }): void {
    const request = this.#requests[selection][0]
    const fits = request && (number === typeNumber(request.type) || number === 0)
    if (!fits || !request.settle) this.dropped.stale++
    if (!fits) return
    if (!cut && bytes.length <= this.#limit && bytes.length > 0 && number !== 0) this.#answered(selection, bytes)
    else if (cut || bytes.length > this.#limit) {
      this.dropped.oversized++
      this.#answered(selection, undefined, `it is larger than the limit of ${this.#limit} bytes`)
    } else this.#answered(selection, undefined, 'it gives nothing; it may be empty or larger than the limit')
  }

  #answered(selection: Selection, bytes: Buffer | undefined, why?: string): void {
    const request = this.#requests[selection].shift()
    clearTimeout(request?.timer)
    request?.settle?.(bytes, why)
    if (!this.#over) this.#ask(selection)
  }

  /** Requests for what is no more are refused; one that is under way still gets its answer, and nobody else may. */
  #stale(selection: Selection, why: string): void {
    const [first, ...rest] = this.#requests[selection].splice(0)
    for (const request of [first, ...rest]) request?.settle?.(undefined, why)
    if (!first) return
    const fresh = first.settle !== undefined
    first.settle = undefined
    this.#requests[selection].push(first)
    if (!fresh) return
    clearTimeout(first.timer)
    first.timer = setTimeout(() => this.#answered(selection, undefined, why), STALE_MS)
  }

  #end(why: string, cause?: Error): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#stall)
    clearTimeout(this.#askAgain)
    this.#outbox.clear()
    this.#stream.on('error', () => {})
    this.#stream.destroy()
    for (const selection of SELECTIONS)
      for (const { settle, timer } of this.#requests[selection].splice(0)) {
        clearTimeout(timer)
        settle?.(undefined, why)
      }
    this.#events.closed(new VmchannelError('ERR_VMCHANNEL_CLOSED', `spice-vdagent: ${why}`, { cause }))
  }
}
