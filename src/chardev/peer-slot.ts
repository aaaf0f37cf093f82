/**
 * The place of one peer at a time: the Chardev of everything whose far end comes and goes. Listeners, dialers, ptys and
 * `attach` fill it with descriptors; the port sees one chardev that is connected or not.
 *
 * `connected` is the truth at once; the port is told afterwards from the event loop, and sees every change of peer as
 * false, then true, even where a new peer took the place in the same instant.
 */

import { closeFd } from '../ffi/libc.ts'
import { hangUp } from '../ffi/socket-calls.ts'
import { yieldCpu } from '../ffi/yield.ts'
import type { Iovec } from '../mem/iovec.ts'
import { recallFd, type Store } from '../store.ts'
import { GONE, type Chardev, type ChardevEnd } from './chardev.ts'
import { FdEnd, type FdEndOptions } from './fd-end.ts'

/** Peers that came and went unheard, whose bytes one discardInput throws away at most. */
const DISCARD_PEERS = 64

export interface SlotOptions {
  label: string
  halfCloseMs: number
  contested?: () => boolean
  silentHangup?: boolean
  /** For a peer that outlives this process. */
  store?: Store | undefined
  /** What is done with the fd of a peer that has gone; closing it unless said otherwise. */
  release?: (fd: number) => void
  /** The place is free again: listen, dial, wait. May adopt at once. Not called after close. */
  onVacant?: () => void
  /** Ends the source of peers and removes what it made. */
  onClose?: () => void
}

export class PeerSlot implements Chardev {
  readonly label: string
  place: string | undefined
  readonly end: ChardevEnd
  readonly #options: SlotOptions
  #peer: FdEnd | undefined
  #fd = -1
  #reading = false
  #closed = false
  /** What the port was told last: the number of a peer, 0 for none. */
  #told = 0
  #serial = 0
  #telling = false
  #started = false
  readonly #adopted: (() => void)[] = []

  constructor(end: ChardevEnd, options: SlotOptions) {
    this.end = end
    this.label = options.label
    this.place = undefined
    this.#options = options
    const left = recallFd(options.store, 'peer')
    if (left !== undefined) this.adopt(left)
  }

  get connected(): boolean {
    return this.#peer !== undefined
  }

  get closed(): boolean {
    return this.#closed
  }

  /** The peer has left; what it sent still waits to be read. */
  get departed(): boolean {
    return this.#peer?.departed ?? false
  }

  /** Whether the place is free; a peer that has left and sent nothing that waits is let go of. */
  vacate(): boolean {
    if (this.#peer?.over) this.disconnect()
    return !this.connected
  }

  /** The opener is done: from here on the port is told of changes. What is there now it sees in `connected`. */
  start(): this {
    this.#started = true
    this.#told = this.#peer ? this.#serial : 0
    return this
  }

  /** Puts a peer into the empty place; from here on the fd belongs to the slot. */
  adopt(fd: number): void {
    const { halfCloseMs, contested, silentHangup = false } = this.#options
    const options: FdEndOptions = { input: fd, output: fd, halfCloseMs, silentHangup }
    if (contested) options.contested = contested
    const peer = new FdEnd(
      {
        readable: () => this.end.readable(),
        writable: () => this.end.writable(),
        warn: (message) => this.end.warn(`${this.label}: ${message}`),
        gone: () => {
          if (this.#peer === peer) this.disconnect()
        },
      },
      options,
    )
    this.#peer = peer
    this.#fd = fd
    this.#options.store?.keep('peer', [fd])
    this.#serial++
    peer.setReading(this.#reading)
    for (const resolve of this.#adopted.splice(0)) resolve()
    this.#tell()
  }

  /** Resolves with the next peer, or at once where one is there. */
  firstPeer(): Promise<void> {
    return this.#peer ? Promise.resolve() : new Promise((resolve) => this.#adopted.push(resolve))
  }

  writev(list: Iovec): number {
    return this.#peer ? this.#peer.writev(list) : GONE
  }

  readv(list: Iovec): number {
    return this.#peer ? this.#peer.readv(list) : GONE
  }

  setReading(on: boolean): void {
    this.#reading = on
    this.#peer?.setReading(on)
  }

  giveWay(): void {
    yieldCpu()
  }

  discardInput(): number {
    let sum = 0
    for (let i = 0; this.#peer && i < DISCARD_PEERS; i++) {
      sum += this.#peer.discardInput()
      if (!this.#peer.departed) break
      this.disconnect()
    }
    return sum
  }

  disconnect(): void {
    if (!this.#peer) return
    this.#drop()
    this.#tell()
    if (!this.#closed) this.#options.onVacant?.()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#drop()
    this.#options.onClose?.()
  }

  #drop(): void {
    if (!this.#peer) return
    this.#peer.close()
    this.#peer = undefined
    if (this.#options.store) {
      // The keeper's copy must not keep the far end waiting.
      hangUp(this.#fd)
      this.#options.store.forget('peer')
    }
    ;(this.#options.release ?? closeFd)(this.#fd)
    this.#fd = -1
  }

  #tell(): void {
    if (this.#telling || !this.#started) return
    this.#telling = true
    queueMicrotask(() => {
      this.#telling = false
      if (this.#closed) return
      const now = this.#peer ? this.#serial : 0
      if (now === this.#told) return
      const before = this.#told
      this.#told = now
      if (before !== 0) this.end.setConnected(false)
      // The port may have closed or disconnected in answer.
      if (now !== 0 && !this.#closed && this.#peer && this.#serial === now) this.end.setConnected(true)
    })
  }
}
