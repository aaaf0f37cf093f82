/**
 * What a clipboard of the host is to sync.ts: it says when a program of the host owns a selection, and becomes the owner
 * of what the guest has. Implemented by memory.ts (a program's own), x11-clipboard.ts and tool.ts (Wayland, X11 by other programs).
 */

import type { MimeType, Selection } from './wire.ts'

/** Content that somebody owns, read when it is wanted. */
export interface ClipboardOffer {
  readonly types: readonly MimeType[]
  /** Rejects where the owner does not give it. May be called after the owner has changed: then it may reject. */
  read(type: MimeType): Promise<Uint8Array>
}

export interface BackendEvents {
  /** A program of the host has become the owner, or nobody is any more. Never called for what `offer` put there. */
  changed(selection: Selection, offer: ClipboardOffer | undefined): void
  /** The clipboard is gone for good. */
  failed(error: Error): void
}

export interface ClipboardBackend {
  /** For messages: "X11 display :0". */
  readonly name: string
  readonly types: readonly MimeType[]
  /** Begins to watch; what is there already is reported too. */
  start(selections: readonly Selection[], limit: number, events: BackendEvents): Promise<void>
  /** Owns the selection with this; undefined lets go where we own it. A later call overtakes one that still runs. */
  offer(selection: Selection, offer: ClipboardOffer | undefined): Promise<void>
  close(): Promise<void>
}
