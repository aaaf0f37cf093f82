/**
 * What the keeper holds: descriptors and notes by name, in the order in which they came. Knows nothing of what they are.
 */

import { closeFd } from '../ffi/libc.ts'
import type { Packet } from './channel.ts'

export interface Held {
  note: string
  fds: number[]
}

export class Shelf {
  readonly items: Map<string, Held> = new Map()

  take({ operation, name, note, fds }: Packet): void {
    if (operation === 'K') {
      const old = this.items.get(name)
      this.items.set(name, { note, fds })
      if (old) close(old.fds)
      return
    }
    close(fds)
    if (operation === 'F') this.#remove(name)
    else if (operation === 'C') for (const key of this.items.keys()) if (key.startsWith(name)) this.#remove(key)
  }

  #remove(name: string): void {
    const held = this.items.get(name)
    this.items.delete(name)
    if (held) close(held.fds)
  }
}

function close(fds: readonly number[]): void {
  for (const fd of fds) closeFd(fd)
}
