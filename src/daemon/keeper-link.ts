/**
 * The device process's end of its keeper: the store in which everything is kept that a successor needs. Made by
 * main.ts.
 *
 * A keeper that does not read (stopped, swapped out) holds nothing up: changes wait, of each name the latest, and the
 * page that both share says that what the keeper has is old, so that nobody takes over from that. When it reads again
 * it is told the rest, and all is as before.
 */

import { ftruncateSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { createMemfd, SharedMapping } from '../ffi/mmap.ts'
import { waitReadable } from '../ffi/rw.ts'
import { PacketReader, type Operation, type Packet } from '../keeper/channel.ts'
import { ChannelEnd } from '../keeper/channel-end.ts'
import { StatusPage } from '../keeper/status-page.ts'
import type { Log } from '../log.ts'
import { Ledger, LEDGER_LEN } from '../mem/ledger.ts'
import { recallFd, type Kept, type Store } from '../store.ts'
import type { DaemonConfig } from './protocol.ts'

/** The keeper does nothing else: who is silent for this long while it says what it has never goes on. */
const START_MS = 10_000
/** How long a change may hold up the device where the channel is full: a burst, and the keeper is at it. */
const PATIENCE_MS = 10
/** After this it is worth a line in the log. */
const SLOW_MS = 2000

export interface Inheritance {
  /** How many processes there were before this one. */
  restarts: number
  /** What the last of them died of, and when. */
  why: string
  diedAt: number
}

export class KeeperLink implements Store {
  readonly inheritance: Inheritance
  readonly #place: NonNullable<DaemonConfig['keeper']>
  readonly #log: Log
  readonly #page: StatusPage
  readonly #channel: ChannelEnd
  readonly #left = new Map<string, Kept>()
  /** Names of what the keeper has. */
  readonly #held = new Set<string>()
  #slow: NodeJS.Timeout | undefined
  #toldSlow = false

  /** Reads what was left; waits for it. */
  constructor(place: NonNullable<DaemonConfig['keeper']>, log: Log) {
    this.#place = place
    this.#log = log
    this.#page = new StatusPage(place.page)
    closeFd(place.page)
    this.inheritance = readLeft(place.channel, this.#left)
    for (const name of this.#left.keys()) this.#held.add(name)
    this.#channel = new ChannelEnd(
      place.channel,
      {
        packet: ({ operation }) => operation === 'P' && this.#post('!P', 'P'),
        ended: () => this.#gone(),
        waiting: (on) => this.#waiting(on),
        sent: (packet) => this.#sent(packet),
      },
      { copies: true, patienceMs: PATIENCE_MS },
    )
  }

  get resumed(): boolean {
    return this.inheritance.restarts > 0
  }

  /** Whom to signal: the keeper, as long as it is there. */
  get pid(): number {
    return this.#channel.closed ? process.pid : this.#place.pid
  }

  /** Everything is running again: what nobody has recalled is let go of. */
  ready(): void {
    for (const [name, { fds }] of this.#left) {
      for (const fd of fds) closeFd(fd)
      this.forget(name)
    }
    this.#left.clear()
    this.#post('!R', 'R')
  }

  recall(name: string): Kept | undefined {
    const kept = this.#left.get(name)
    this.#left.delete(name)
    return kept
  }

  left(): string[] {
    return [...this.#left.keys()]
  }

  keep(name: string, fds: readonly number[], note = ''): void {
    this.#post(name, 'K', name, note, fds)
  }

  forget(name: string): void {
    if (this.#held.has(name)) this.#post(name, 'F', name)
    else this.#channel.drop(name)
  }

  clear(): void {
    this.clearScope('')
  }

  scope(name: string): Store {
    return new Scope(this, `${name}/`)
  }

  /** Forgets all that begin with a prefix. */
  clearScope(prefix: string): void {
    this.#channel.dropAll(prefix)
    for (const name of this.#held) if (name.startsWith(prefix)) return this.#post(`!C${prefix}`, 'C', prefix)
  }

  #post(key: string, operation: Operation, name = '', note = '', fds: readonly number[] = []): void {
    this.#channel.post(key, operation, name, note, fds)
  }

  #sent({ operation, name }: Packet): void {
    if (operation === 'K') this.#held.add(name)
    else if (operation === 'F') this.#held.delete(name)
    else if (operation === 'C') for (const one of this.#held) if (one.startsWith(name)) this.#held.delete(one)
  }

  /** Before anything goes on that the keeper does not know: should this process die now, nobody may take over. */
  #waiting(on: boolean): void {
    this.#page.behind = on
    clearTimeout(this.#slow)
    if (on) {
      this.#slow = setTimeout(() => {
        this.#toldSlow = true
        this.#log.warn(
          `the keeper (process ${this.#place.pid}) does not read: until it does, the devices end if this process dies`,
        )
      }, SLOW_MS)
      return
    }
    if (this.#toldSlow) this.#log.warn('the keeper has read everything: another process takes over if this one dies')
    this.#toldSlow = false
  }

  #gone(): void {
    this.#page.behind = true
    clearTimeout(this.#slow)
    this.#held.clear()
    this.#log.error('the keeper has gone: when this process dies, so does the device')
  }
}

/** Puts what was left into `left`, up to the keeper's word that it was all. */
function readLeft(fd: number, left: Map<string, Kept>): Inheritance {
  const reader = new PacketReader()
  for (;;) {
    const packet = reader.read(fd)
    if (packet === 'none' && waitReadable(fd, START_MS)) continue
    if (packet === 'no room')
      throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', 'the limit of open files is too low for what the keeper has', {
        hint: `${left.size} things were taken over before; see "ulimit -n" and "prlimit"`,
      })
    if (typeof packet === 'string')
      throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', 'the keeper does not say what it has')
    if (packet.operation === 'E') return JSON.parse(packet.note) as Inheritance
    left.set(packet.name, { note: packet.note, fds: packet.fds })
  }
}

class Scope implements Store {
  readonly #link: KeeperLink
  readonly #prefix: string

  constructor(link: KeeperLink, prefix: string) {
    this.#link = link
    this.#prefix = prefix
  }

  recall(name: string): Kept | undefined {
    return this.#link.recall(this.#prefix + name)
  }

  left(): string[] {
    const names = this.#link.left().filter((name) => name.startsWith(this.#prefix))
    return names.map((name) => name.slice(this.#prefix.length))
  }

  keep(name: string, fds: readonly number[], note?: string): void {
    this.#link.keep(this.#prefix + name, fds, note)
  }

  forget(name: string): void {
    this.#link.forget(this.#prefix + name)
  }

  clear(): void {
    this.#link.clearScope(this.#prefix)
  }

  scope(name: string): Store {
    return new Scope(this.#link, `${this.#prefix}${name}/`)
  }
}

export interface SharedLedger {
  ledger: Ledger
  /** It is kept for a successor. */
  commit(): void
  /** In place of `commit`: nobody needs it. */
  abandon(): void
}

/** A ledger that a successor finds again: the one that was left, or a new one. */
export function sharedLedger(store: Store | undefined): SharedLedger {
  if (!store) return { ledger: new Ledger(), commit() {}, abandon() {} }
  const left = recallFd(store, 'ledger')
  const fd = left ?? createMemfd('vmchannel-ledger', false)
  if (left === undefined) ftruncateSync(fd, LEDGER_LEN)
  const mapping = new SharedMapping(fd, LEDGER_LEN, true)
  const [piece] = mapping.pieces(0, LEDGER_LEN)
  const commit = (): void => {
    if (left === undefined) store.keep('ledger', [fd])
    closeFd(fd)
  }
  const abandon = (): void => {
    closeFd(fd)
    mapping.drop()
  }
  return { ledger: new Ledger(piece!.bytes, mapping.address, left !== undefined), commit, abandon }
}
