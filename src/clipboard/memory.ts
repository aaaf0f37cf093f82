/** A clipboard inside a program: what the program writes the guest can paste, what the guest copies the program reads. */

import { EventEmitter } from 'node:events'
import { VmchannelError } from '../errors.ts'
import type { BackendEvents, ClipboardBackend, ClipboardOffer } from './backend.ts'
import { MIME_TYPES, type MimeType, type Selection } from './wire.ts'

const TEXT: MimeType = 'text/plain;charset=utf-8'

export interface MemoryClipboardEvents {
  /** The guest owns the selection now, with these types; none: it has let go. */
  change: [selection: Selection, types: readonly MimeType[]]
}

export class MemoryClipboard extends EventEmitter<MemoryClipboardEvents> implements ClipboardBackend {
  readonly name: string = 'memory'
  readonly types: readonly MimeType[] = MIME_TYPES
  readonly #offers = new Map<Selection, ClipboardOffer>()
  #events: BackendEvents | undefined

  /** Text, or content by its types. */
  write(content: string | Partial<Record<MimeType, Uint8Array>>, selection: Selection = 'clipboard'): void {
    const all = typeof content === 'string' ? { [TEXT]: Buffer.from(content) } : { ...content }
    const types = MIME_TYPES.filter((type) => all[type] !== undefined)
    const offer: ClipboardOffer = { types, read: (type) => Promise.resolve(all[type] ?? new Uint8Array()) }
    this.#offers.set(selection, offer)
    this.#events?.changed(selection, offer)
  }

  clear(selection: Selection = 'clipboard'): void {
    this.#offers.delete(selection)
    this.#events?.changed(selection, undefined)
  }

  /** Types of what is there, whoever owns it. */
  available(selection: Selection = 'clipboard'): readonly MimeType[] {
    return this.#offers.get(selection)?.types ?? []
  }

  async read(type: MimeType = TEXT, selection: Selection = 'clipboard'): Promise<Uint8Array> {
    const offer = this.#offers.get(selection)
    if (offer?.types.includes(type)) return offer.read(type)
    const has = offer === undefined ? 'is empty' : `has only ${offer.types.join(', ')}`
    throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `the ${selection} ${has}, not ${type}`)
  }

  async readText(selection: Selection = 'clipboard'): Promise<string> {
    return Buffer.from(await this.read(TEXT, selection)).toString()
  }

  /** @internal */
  async start(selections: readonly Selection[], _limit: number, events: BackendEvents): Promise<void> {
    this.#events = events
    for (const [selection, offer] of this.#offers) if (selections.includes(selection)) events.changed(selection, offer)
  }

  /** @internal */
  async offer(selection: Selection, offer: ClipboardOffer | undefined): Promise<void> {
    if (offer) this.#offers.set(selection, offer)
    else this.#offers.delete(selection)
    this.emit('change', selection, offer?.types ?? [])
  }

  /** @internal */
  async close(): Promise<void> {
    this.#events = undefined
  }
}
