/**
 * What the guest was told of each port, in the ledger: a successor goes on telling. Used by control.ts.
 *
 * Each message is noted before it is put into the ring, with the position that the queue has then: a successor sees
 * from the queue whether it was said. All of them are saved before they are published, which a successor does.
 */

import type { Ledger } from '../mem/ledger.ts'

/** What there is to tell about one port, and what was told. */
export interface PortNews {
  exists: boolean
  console: boolean
  /** UTF-8, without NUL (§5.3.6.2). */
  name: Uint8Array | undefined
  size: { cols: number; rows: number } | undefined
  open: boolean
  /** What the guest was told. */
  toldExists: boolean
  toldOpen: boolean
  /** What it still has to be told besides the difference of the above. */
  owesRemove: boolean
  owesConsole: boolean
  owesName: boolean
  owesSize: boolean
  owesClose: boolean
  /** The driver said PORT_READY since it was told of the port. */
  ready: boolean
  /** A driver was told of this port, in this life or an earlier one. */
  known: boolean
  /** The driver was told to forget an older port of this number. */
  takenBack: boolean
}

const FLAGS = [
  'exists',
  'toldExists',
  'toldOpen',
  'owesRemove',
  'owesConsole',
  'owesName',
  'owesSize',
  'owesClose',
  'ready',
  'known',
  'takenBack',
] as const
const PRESENT = 1 << FLAGS.length
const KNOWN = (1 << FLAGS.indexOf('toldExists')) | (1 << FLAGS.indexOf('owesRemove'))

export class ControlNotes {
  readonly #flags: Uint32Array
  /** cols | rows << 16; 0 where the size is not known. */
  readonly #sizes: Uint32Array
  /** A message of the guest whose buffer is going back, and that is not done yet: see `begin`. */
  readonly #message: Uint32Array
  /** What is true of a port once a message to the driver is in the ring: see `say`. */
  readonly #saying: Uint32Array
  /** What another process has left is still to be read. */
  #unread: boolean
  /** What is there was not written by this process. */
  #whole = true

  constructor(maxPorts: number, ledger: Ledger) {
    this.#flags = ledger.u32(maxPorts + 1)
    this.#sizes = ledger.u32(maxPorts)
    this.#message = ledger.u32(4)
    this.#saying = ledger.u32(4)
    this.#unread = ledger.resumed
  }

  /** Writes down the state of those `changed`, and what is true for all of them. */
  save(ports: readonly (PortNews | undefined)[], changed: Iterable<number>, all: number): void {
    if (this.#unread) return
    const last = this.#flags.length - 1
    for (const id of this.#whole ? this.#flags.keys() : changed) {
      if (id === last) continue
      const port = ports[id]
      if (port) this.#sizes[id] = port.size ? port.size.cols | (port.size.rows << 16) : 0
      this.#flags[id] = port ? flagsOf(port) : 0
    }
    this.#flags[last] = all
    this.#saying[0] = 0
    this.#whole = false
  }

  /**
   * Before a message about a port is put into the ring; `next` is the queue's position then, `port` what is true then.
   */
  say(id: number, port: PortNews, next: number): void {
    this.#saying[0] = 0
    this.#saying[1] = id
    this.#saying[2] = flagsOf(port)
    this.#saying[3] = next
    this.#saying[0] = 1
  }

  /**
   * Brings `ports`, which have been added as new ones, to where they were; returns what was given to `save`. `next` is
   * the queue's position.
   */
  resume(ports: (PortNews | undefined)[], next: number): number {
    this.#unread = false
    const last = this.#flags.length - 1
    const [valid, said, news, at] = this.#saying
    if (valid === 1 && at === next && said! < last) this.#flags[said!] = news!
    for (let id = 0; id < last; id++) {
      const flags = this.#flags[id]!
      const now = ports[id]
      // Gone, and the driver knows it or has yet to hear a farewell; or added again, and never saved.
      if ((flags & PRESENT) === 0 || (!now && (flags & KNOWN) === 0)) continue
      const port: PortNews = (ports[id] = now ?? farewell())
      const { exists } = port
      for (let i = 0; i < FLAGS.length; i++) port[FLAGS[i]!] = (flags & (1 << i)) !== 0
      port.exists = exists
      if (!exists) {
        // The process before died while it added or removed this port.
        port.owesRemove = true
        port.toldExists = port.ready = false
      }
      const size = this.#sizes[id]!
      if (exists && size !== 0) port.size = { cols: size & 0xffff, rows: size >>> 16 }
    }
    return this.#flags[last]!
  }

  /** The driver starts from nothing: whatever was left does not count. */
  reset(): void {
    this.#unread = false
    this.#saying[0] = this.#message[2] = 0
  }

  /**
   * Before the buffer of a message goes back; `next` is the queue's position then. It is done again where it is not
   * `done`: nothing was told for it yet.
   */
  begin(id: number, event: number, value: number, next: number): void {
    this.#message[0] = id
    this.#message[1] = event | (value << 16)
    this.#message[3] = next
    this.#message[2] = 1
  }

  done(): void {
    this.#message[2] = 0
  }

  /** The message that the process before did not get done; not one that is in the ring still. */
  undone(next: number): { id: number; event: number; value: number } | undefined {
    if (this.#message[2] !== 1 || this.#message[3] !== next) return undefined
    const [id, word] = [this.#message[0]!, this.#message[1]!]
    return { id, event: word & 0xffff, value: word >>> 16 }
  }
}

function flagsOf(port: PortNews): number {
  let flags = PRESENT
  for (let i = 0; i < FLAGS.length; i++) if (port[FLAGS[i]!]) flags |= 1 << i
  return flags
}

function farewell(): PortNews {
  const base = { exists: false, console: false, name: undefined, size: undefined, open: false }
  const flags = Object.fromEntries(FLAGS.map((key) => [key, false])) as Record<(typeof FLAGS)[number], boolean>
  return { ...flags, ...base }
}
