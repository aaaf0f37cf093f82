/**
 * The clipboard of an X11 display over a connection of our own. Content of the guest is fetched when a program pastes it,
 * in any of its types, and every request is answered, also one that comes too late: a clipboard tool, a process for each
 * owner, leaves programs waiting for ever where it ends at the wrong moment. x11-reader.ts and x11-writer.ts move content.
 */

import type { BackendEvents, ClipboardBackend, ClipboardOffer } from './backend.ts'
import { MIME_TYPES, type MimeType, type Selection } from './wire.ts'
import { TypeAtoms } from './x11-atoms.ts'
import { displayName } from './x11-auth.ts'
import { EVENT_MASK, PROPERTY_CHANGE, REQUEST } from './x11-numbers.ts'
import { X11Reader } from './x11-reader.ts'
import { u32, XServer } from './x11-server.ts'
import { selectChanges, type SelectionAtoms, type SelectionChange } from './x11-watch.ts'
import { X11Writer } from './x11-writer.ts'

const INPUT_ONLY = 2

interface State {
  /** What the guest has, while it is ours. */
  offer: ClipboardOffer | undefined
  /** Counts changes of owners, so that a look that is overtaken says nothing. */
  change: number
  /** How often we have made it ours without having been told so yet. */
  claims: number
  /** The server's time when it became ours. */
  since: number
  /** We have given it up, and not been told so yet. */
  letGo: boolean
}

const nobodys = (): State => ({ offer: undefined, change: 0, claims: 0, since: 0, letGo: false })

export class X11Clipboard implements ClipboardBackend {
  readonly name: string
  readonly types: readonly MimeType[] = MIME_TYPES
  readonly #env: NodeJS.ProcessEnv
  readonly #states: Record<Selection, State> = { clipboard: nobodys(), primary: nobodys() }
  #server: XServer | undefined
  #changes: SelectionAtoms | undefined
  #window = 0
  #reader: X11Reader | undefined
  #writer: X11Writer | undefined
  #events: BackendEvents | undefined

  constructor(env: NodeJS.ProcessEnv) {
    this.name = `X11 display ${displayName(env)}`
    this.#env = env
  }

  async start(selections: readonly Selection[], limit: number, events: BackendEvents): Promise<void> {
    const server = await XServer.open(this.#env)
    this.#server = server
    try {
      const types = await TypeAtoms.get(server)
      this.#window = server.id(1)
      const place = [this.#window, server.root, 0, 1 | (1 << 16), INPUT_ONLY << 16, 0]
      server.send(REQUEST.createWindow, 0, u32(...place, EVENT_MASK, PROPERTY_CHANGE))
      const changes = (this.#changes = await selectChanges(server, selections))
      const reader = (this.#reader = new X11Reader(server, this.#window, types, limit))
      await reader.prepare()
      const writer = (this.#writer = new X11Writer(server, types, (atom) => {
        const selection = changes.atoms.get(atom)
        return selection === undefined ? undefined : this.#states[selection].offer
      }))
      server.onEvent = (event) => {
        const change = changes.read(event)
        if (change) this.#changed(change)
        else if (!reader.take(event)) writer.take(event)
      }
      server.onGone = (error) => events.failed(error)
      this.#events = events
      for (const selection of selections) void this.#look(selection)
    } catch (error) {
      server.close()
      throw error
    }
  }

  async offer(selection: Selection, offer: ClipboardOffer | undefined): Promise<void> {
    const state = this.#states[selection]
    const had = state.offer !== undefined
    state.offer = offer
    state.change++
    if (offer) {
      state.claims++
      this.#server?.send(REQUEST.setSelectionOwner, 0, u32(this.#window, this.#atom(selection), 0))
    } else if (had) this.#letGo(selection)
  }

  async close(): Promise<void> {
    this.#events = undefined
    // Nobody is to ask any more; who has asked gets an answer.
    for (const selection of this.#changes?.atoms.values() ?? [])
      if (this.#states[selection].offer) this.#letGo(selection)
    await this.#writer?.finish()
    await this.#server?.finish()
  }

  /** With the time at which it became ours: it has no effect where another program owns it since. */
  #letGo(selection: Selection): void {
    const state = this.#states[selection]
    if (state.claims > 0) return // once that is answered
    state.letGo = true
    this.#server?.send(REQUEST.setSelectionOwner, 0, u32(0, this.#atom(selection), state.since))
  }

  #changed({ selection, owner, since }: SelectionChange): void {
    const state = this.#states[selection]
    if (owner === this.#window) {
      state.since = since
      if (--state.claims <= 0 && !state.offer) this.#letGo(selection)
      return
    }
    // We have claimed it since then; our own event follows.
    if (state.claims > 0) return
    const ours = owner === 0 && state.letGo
    state.letGo = false
    if (ours) return
    state.offer = undefined
    if (owner !== 0) return void this.#look(selection)
    state.change++
    this.#events?.changed(selection, undefined)
  }

  /** Another program owns it, or none. */
  async #look(selection: Selection): Promise<void> {
    const state = this.#states[selection]
    const change = ++state.change
    const [reader, atom] = [this.#reader!, this.#atom(selection)]
    const types = await reader.list(atom).catch(() => [])
    if (state.change !== change) return
    const read = (type: MimeType): Promise<Buffer> => reader.read(atom, type)
    this.#events?.changed(selection, types.length === 0 ? undefined : { types, read })
  }

  #atom(selection: Selection): number {
    return [...this.#changes!.atoms].find(([, name]) => name === selection)![0]
  }
}
