/**
 * The seam between a port and where its bytes leave the house.
 *
 * The ring is the buffer: a chardev keeps no queue. It takes as many bytes as its far end takes now and says how many;
 * it hands over bytes only when it is asked, straight into the buffers of the other half. Both calls return at once.
 */

import type { Iovec } from '../mem/iovec.ts'

/** Returned by `writev` and `readv` when nothing can move now; the end is told later by `writable()` / `readable()`. */
export const WOULD_BLOCK = 0
/** Returned by `readv` and `writev` when the far end is gone. `end.setConnected(false)` follows or has gone before. */
export const GONE = -1

export interface Chardev {
  /** What to show a person, in the string form: "unix:/run/vm.sock,server=on". */
  readonly label: string
  /** Whether a far end is there now. Files, null and the like always are. */
  readonly connected: boolean
  /** Where it ended up, where that is not in the label: the pty's name, the bound tcp port. */
  readonly place: string | undefined

  /** Sends from the list; returns the bytes taken, 0 (WOULD_BLOCK) or GONE. After fewer than all: `end.writable()` later. */
  writev(list: Iovec): number
  /** Fills the list from its start; returns the bytes, 0 (WOULD_BLOCK) or GONE. After 0: `end.readable()` later. */
  readv(list: Iovec): number
  /**
   * Says whether the port has room for input. While false the chardev neither reads nor reports `readable`: what the
   * host sends stays in the kernel's buffer and holds up the sender. It still reports a far end that goes away.
   */
  setReading(on: boolean): void
  /** Where the far end may be a process of this machine: lets it run for an instant, since it may answer at once. */
  giveWay?(): void
  /** Throws away what the far end has sent and nobody has read; returns the bytes. */
  discardInput(): number
  /** Ends the current connection, if there is such a thing, and waits for the next; a no-op elsewhere. */
  disconnect(): void
  /** Ends it for good and removes what it made (sockets, pty links). */
  close(): void
}

/** What a chardev tells its port. Calls come from the event loop, never from inside writev/readv/setReading. */
export interface ChardevEnd {
  /** A far end came or went. */
  setConnected(connected: boolean): void
  /** Input may be there: the port calls readv. */
  readable(): void
  /** Room may be there again: the port calls writev. */
  writable(): void
  /** The far end is a terminal and has a new size, in characters. */
  resized(cols: number, rows: number): void
  /** Something that a person should know, once; the chardev goes on by itself. */
  warn(message: string): void
}

/** Makes a chardev for a port; may have to wait (name resolution), rejects with VmchannelError. */
export type OpenChardev = (end: ChardevEnd) => Promise<Chardev>
