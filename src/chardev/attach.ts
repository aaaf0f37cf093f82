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
  /** Makes a connected stream socket the peer; false where there is one already, and the fd stays the caller's. */
  attach(fd: number): boolean
}

export function openAttach(spec: AttachSpec, end: ChardevEnd, _signal?: AbortSignal, store?: Store): AttachChardev {
  return new AttachSlot(end, {
    label: formatChardevSpec(spec),
    halfCloseMs: spec.halfCloseMs ?? HALF_CLOSE_MS,
    store,
  }).start()
}

/** Whether a chardev takes handed-over connections. */
export function isAttach(chardev: Chardev | undefined): chardev is AttachChardev {
  return chardev instanceof AttachSlot
}

class AttachSlot extends PeerSlot implements AttachChardev {
  attach(fd: number): boolean {
    if (this.closed || this.connected) return false
    this.adopt(fd)
    return true
  }
}
