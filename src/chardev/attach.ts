/**
 * A port without a door of its own: its peers are connections that the owner of the device has accepted and hands over,
 * already past any greeting. The back end of in-process streams and of `vmchannel connect`.
 */

import type { Store } from '../store.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { HALF_CLOSE_MS } from './fd-end.ts'
import { PeerSlot } from './peer-slot.ts'
import { formatChardevSpec, type AttachSpec } from './spec.ts'

export interface AttachChardev extends Chardev {
  /** Whether the place is free, or becomes so at once: whoever had it may have left in this very moment. */
  vacate(): boolean
  /**
   * Somebody would like to have the place. Says whether the peer that has it has left, and only its bytes wait for the
   * guest: those are dropped in a while then, as where a peer waits at a listener.
   */
  want(): boolean
  /** Makes a connected stream socket the peer; false where there is one already, and the fd stays the caller's. */
  attach(fd: number): boolean
}

export function openAttach(spec: AttachSpec, end: ChardevEnd, _signal?: AbortSignal, store?: Store): AttachChardev {
  const slot: AttachSlot = new AttachSlot(end, {
    label: formatChardevSpec(spec),
    halfCloseMs: spec.halfCloseMs ?? HALF_CLOSE_MS,
    contested: () => slot.wanted,
    store,
  })
  return slot.start()
}

/** Whether a chardev takes handed-over connections. */
export function isAttach(chardev: Chardev | undefined): chardev is AttachChardev {
  return chardev instanceof AttachSlot
}

/** Who was refused comes again, if at all, within this time. */
const WANTED_MS = 15_000

class AttachSlot extends PeerSlot implements AttachChardev {
  #wantedAt = -Infinity

  get wanted(): boolean {
    return performance.now() - this.#wantedAt < WANTED_MS
  }

  want(): boolean {
    this.#wantedAt = performance.now()
    return this.departed
  }

  attach(fd: number): boolean {
    if (this.closed || this.connected) return false
    this.adopt(fd)
    return true
  }
}
