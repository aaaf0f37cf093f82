/**
 * The device process's end of its keeper: the store in which everything is kept that a successor needs. Made by main.ts.
 */

import { ftruncateSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { createMemfd, SharedMapping } from '../ffi/mmap.ts'
import { waitReadable, waitWritable } from '../ffi/rw.ts'
import { PacketReader, sendPacket, type Operation } from '../keeper/channel.ts'
import { Ledger, LEDGER_LEN } from '../mem/ledger.ts'
import { recallFd, type Kept, type Store } from '../store.ts'

const START_MS = 10_000
/** The keeper does nothing else; who does not read for this long never will. */
const PATIENCE_MS = 2000

export interface Inheritance {
  /** How many processes there were before this one. */
  restarts: number
  /** What the last of them died of, and when. */
  why: string
  diedAt: number
}

export class KeeperLink implements Store {
  readonly inheritance: Inheritance
  readonly #fd: number
  readonly #left = new Map<string, Kept>()
  readonly #onGone: () => void
  #gone = false

  /** Reads what was left; waits for it. `onGone` is called once, when the keeper turns out to be dead. */
  constructor(fd: number, onGone: () => void) {
    this.#fd = fd
    this.#onGone = onGone
    const reader = new PacketReader()
    const deadline = performance.now() + START_MS
    for (;;) {
      const packet = reader.read(fd)
      if (packet === null || performance.now() > deadline)
        throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', 'the keeper does not say what it has')
      if (packet === undefined) waitReadable(fd, START_MS)
      else if (packet.operation === 'E') {
        this.inheritance = JSON.parse(packet.note) as Inheritance
        return
      } else this.#left.set(packet.name, { note: packet.note, fds: packet.fds })
    }
  }

  get resumed(): boolean {
    return this.inheritance.restarts > 0
  }

  /** Everything is running again: what nobody has recalled is let go of. */
  ready(): void {
    for (const [name, { fds }] of this.#left) {
      for (const fd of fds) closeFd(fd)
      this.forget(name)
    }
    this.#left.clear()
    this.#send('R', '')
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
    this.#send('K', name, note, fds)
  }

  forget(name: string): void {
    this.#send('F', name)
  }

  clear(): void {
    this.#send('C', '')
  }

  scope(name: string): Store {
    return new Scope(this, `${name}/`)
  }

  /** Forgets all that begin with a prefix. */
  clearScope(prefix: string): void {
    this.#send('C', prefix)
  }

  #send(operation: Operation, name: string, note = '', fds: readonly number[] = []): void {
    const deadline = performance.now() + PATIENCE_MS
    while (!this.#gone) {
      const sent = sendPacket(this.#fd, operation, name, note, fds)
      if (sent === 'sent') return
      if (sent === 'full' && performance.now() < deadline) waitWritable(this.#fd, 1)
      else {
        this.#gone = true
        this.#onGone()
      }
    }
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

/** A ledger that a successor finds again: the one that was left, or a new one, which is kept when `commit` is called. */
export function sharedLedger(store: Store | undefined): { ledger: Ledger; commit: () => void } {
  if (!store) return { ledger: new Ledger(), commit: () => {} }
  const left = recallFd(store, 'ledger')
  const fd = left ?? createMemfd('vmchannel-ledger', false)
  if (left === undefined) ftruncateSync(fd, LEDGER_LEN)
  const mapping = new SharedMapping(fd, LEDGER_LEN, true)
  const [piece] = mapping.pieces(0, LEDGER_LEN)
  const commit = (): void => {
    if (left === undefined) store.keep('ledger', [fd])
    closeFd(fd)
  }
  return { ledger: new Ledger(piece!.bytes, mapping.address, left !== undefined), commit }
}
