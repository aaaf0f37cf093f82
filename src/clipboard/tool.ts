/**
 * A clipboard of the host's desktop through the programs that read and own it: x11-tools.ts and wayland.ts say which.
 * Content is fetched when the guest wants it; the guest's is fetched when it was copied there, since a tool has to have
 * what it owns.
 *
 * Who owns the clipboard is known by the tool's process: it ends when another program takes over. So a change while it
 * runs is its own, and no echo.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { VmchannelError } from '../errors.ts'
import type { BackendEvents, ClipboardBackend, ClipboardOffer } from './backend.ts'
import { runTool } from './run-tool.ts'
import type { MimeType, Selection } from './wire.ts'

/** Between two starts for one selection: the guest says how often something is copied there. */
const START_MS = 250
/** A tool that ends sooner than this with an error cannot do its work at all. */
const SOON_MS = 500

type Words = readonly [string, ...string[]]

export interface ClipboardTool {
  readonly name: string
  /** In the order in which one is chosen where only one can be owned. */
  readonly types: readonly MimeType[]
  readonly env: NodeJS.ProcessEnv
  /** Types of what is there. */
  list(selection: Selection): Promise<readonly MimeType[]>
  read(selection: Selection, type: MimeType): Words
  /** Reads content from its standard input and stays until another program owns the selection. */
  own(selection: Selection, type: MimeType): Words
  /** Calls back at every change of owner, also at those of `own`; what it returns stops it. */
  watch(
    selections: readonly Selection[],
    changed: (selection: Selection) => void,
    failed: (error: Error) => void,
  ): Promise<() => void>
}

interface State {
  /** The tool that owns the selection for the guest, and the one before it, which may be ending. */
  owner: ChildProcess | undefined
  before: ChildProcess | undefined
  /** What is to be owned next; the last one counts. Undefined: nothing. */
  wish: ClipboardOffer | undefined
  /** Fulfils wishes, one at a time. */
  work: Promise<void> | undefined
  started: number
  /** Counts changes, so that what is overtaken stops. */
  change: number
}

function newState(): State {
  return { owner: undefined, before: undefined, wish: undefined, work: undefined, started: -START_MS, change: 0 }
}

export class ToolClipboard implements ClipboardBackend {
  readonly name: string
  readonly types: readonly MimeType[]
  readonly #tool: ClipboardTool
  readonly #states: Record<Selection, State> = {
    clipboard: newState(),
    primary: newState(),
  }
  #events: BackendEvents | undefined
  #limit = 0
  #stop: (() => void) | undefined

  constructor(tool: ClipboardTool) {
    this.name = tool.name
    this.types = tool.types
    this.#tool = tool
  }

  async start(selections: readonly Selection[], limit: number, events: BackendEvents): Promise<void> {
    this.#limit = limit
    this.#events = events
    const changed = (selection: Selection): void => {
      if (!this.#states[selection].owner) void this.#look(selection)
    }
    this.#stop = await this.#tool.watch(selections, changed, (error) => this.#events?.failed(error))
    for (const selection of selections) changed(selection)
  }

  async offer(selection: Selection, offer: ClipboardOffer | undefined): Promise<void> {
    const state = this.#states[selection]
    state.change++
    state.wish = offer && this.#typeOf(offer) !== undefined ? offer : undefined
    if (!state.wish) return this.#letGo(state)
    await (state.work ??= this.#fulfil(selection).finally(() => (state.work = undefined)))
  }

  #typeOf(offer: ClipboardOffer): MimeType | undefined {
    return this.types.find((one) => offer.types.includes(one))
  }

  /** Content is fetched, and a tool is started, for the last wish only, and not more often than START_MS. */
  async #fulfil(selection: Selection): Promise<void> {
    const state = this.#states[selection]
    for (let wish = state.wish; wish && this.#events; wish = state.wish) {
      const pause = state.started + START_MS - performance.now()
      if (pause > 0) {
        await sleep(pause, undefined, { ref: false })
        continue
      }
      const type = this.#typeOf(wish)!
      let bytes: Uint8Array
      try {
        bytes = await wish.read(type)
      } catch (error) {
        if (state.wish !== wish) continue
        state.wish = undefined
        throw error
      }
      if (!this.#events || state.wish !== wish) continue
      state.wish = undefined
      state.started = performance.now()
      this.#own(selection, type, bytes)
    }
  }

  #own(selection: Selection, type: MimeType, bytes: Uint8Array): void {
    const state = this.#states[selection]
    const [file, ...args] = this.#tool.own(selection, type)
    const child = spawn(file, args, { env: this.#tool.env, stdio: ['pipe', 'ignore', 'ignore'] })
    const [before, since] = [state.owner, Date.now()]
    state.owner = child
    child.stdin.on('error', () => {}) // it ended early: its status says so
    child.stdin.end(bytes)
    const failed = (why: string): void =>
      this.#events?.failed(new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${file} ${why}`))
    child.once('error', (error) => failed(`cannot be started: ${error.message}`))
    child.once('close', (status, signal) => {
      if (state.owner !== child) return
      state.owner = undefined
      if (status === 0 || signal !== null) return void this.#look(selection)
      // xclip dies of a program that goes away while it pastes: the next one may still want it.
      if (Date.now() - since >= SOON_MS) this.#own(selection, type, bytes)
      else failed(`ended with status ${status}`)
    })
    // It ends by itself when the new one has taken over; one that does not must not stay.
    state.before?.kill()
    state.before = before
    if (before) setTimeout(() => before.kill(), 5000).unref()
  }

  async close(): Promise<void> {
    this.#events = undefined
    this.#stop?.()
    for (const state of Object.values(this.#states)) this.#letGo(state)
  }

  #letGo(state: State): void {
    const { owner } = state
    state.owner = state.wish = undefined
    owner?.kill()
  }

  /** Another program owns the selection, or none. */
  async #look(selection: Selection): Promise<void> {
    const state = this.#states[selection]
    const change = ++state.change
    const types = await this.#tool.list(selection).catch(() => [])
    if (state.change !== change) return
    const read = (type: MimeType): Promise<Buffer> => {
      const words = this.#tool.read(selection, type)
      return runTool(words, { env: this.#tool.env, max: this.#limit })
    }
    this.#events?.changed(selection, types.length === 0 ? undefined : { types, read })
  }
}
