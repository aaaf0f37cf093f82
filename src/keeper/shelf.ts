/**
 * What the keeper holds: descriptors and notes by name, in the order in which they came. Knows nothing of what they
 * are, but for which are sockets: those have something unread where nobody serves them.
 */

import { fstatSync } from 'node:fs'
import { closeFd } from '../ffi/libc.ts'
import type { Packet } from './channel.ts'

export interface Held {
  note: string
  fds: number[]
}

export class Shelf {
  readonly items: Map<string, Held> = new Map()
  readonly sockets: Set<number> = new Set()

  take({ operation, name, note, fds }: Packet): void {
    if (operation === 'K') {
      const old = this.items.get(name)
      this.items.set(name, { note, fds })
      if (old) this.#close(old.fds)
      for (const fd of fds) if (fstatSync(fd).isSocket()) this.sockets.add(fd)
      return
    }
    this.#close(fds)
    if (operation === 'F') this.#remove(name)
    else if (operation === 'C') for (const key of this.items.keys()) if (key.startsWith(name)) this.#remove(key)
  }

  /** Lets go of everything. */
  clear(): void {
    for (const key of this.items.keys()) this.#remove(key)
  }

  #remove(name: string): void {
    const held = this.items.get(name)
    this.items.delete(name)
    if (held) this.#close(held.fds)
  }

  #close(fds: readonly number[]): void {
    for (const fd of fds) {
      this.sockets.delete(fd)
      closeFd(fd)
    }
  }
}
