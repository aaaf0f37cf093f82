/**
 * One end of the channel on an event loop: what comes is handed over, what finds no room waits, and nobody is held up
 * by the other end. The keeper has one for its device process, the device process one for its keeper.
 */

import { closeFd } from '../ffi/libc.ts'
import { Watch, type Readiness } from '../ffi/poll.ts'
import { waitWritable } from '../ffi/rw.ts'
import { PacketReader, type NoPacket, type Operation, type Packet, type Sent } from './channel.ts'
import { Outbox } from './outbox.ts'

/** Room for descriptors: nothing says when there is some again. */
const RETRY_MS = 5
const NO_ROOM_MS = 1000
/** Packets read in one turn of the event loop. */
const TURN_PACKETS = 256

export interface ChannelOwner {
  packet(packet: Packet): void
  /** The channel is of no use any more: the other end has gone, or has closed it. Once. */
  ended(): void
  /** Packets with descriptors wait, because this process has no room for more; `false`: there is room again. */
  noRoom?(on: boolean): void
  /** Something waits to be sent, or nothing does any more. */
  waiting?(on: boolean): void
  sent?(packet: Packet): void
}

export interface ChannelOptions {
  /** See Outbox. */
  copies: boolean
  patienceMs: number
}

export class ChannelEnd {
  readonly fd: number
  readonly #owner: ChannelOwner
  readonly #watch: Watch
  readonly #reader = new PacketReader()
  readonly #outbox: Outbox
  #waiting = false
  #noRoom = false
  #closed = false
  /** How far was read when it was closed. */
  #last: NoPacket = 'end'
  #retry: NodeJS.Timeout | undefined
  #again: NodeJS.Timeout | undefined

  constructor(fd: number, owner: ChannelOwner, { copies, patienceMs }: ChannelOptions) {
    this.fd = fd
    this.#owner = owner
    this.#outbox = new Outbox(fd, copies, patienceMs, (packet) => owner.sent?.(packet))
    this.#watch = new Watch(fd, (ready) => this.#onReady(ready))
    this.#watch.want(true, false)
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Tells the other end, now or as soon as there is room; see Outbox. */
  post(key: string, operation: Operation, name = '', note = '', fds: readonly number[] = []): void {
    if (this.#closed) return
    let sent: Sent
    try {
      sent = this.#outbox.post(key, { operation, name, note, fds: [...fds] })
    } catch {
      // No descriptor for a copy: what cannot be told must not be left out.
      sent = 'gone'
    }
    this.#after(sent)
  }

  drop(key: string): void {
    this.#outbox.drop(key)
    if (!this.#closed && this.#waiting) this.#after(this.#outbox.size === 0 ? 'sent' : 'full')
  }

  dropAll(prefix: string): void {
    this.#outbox.dropAll(prefix)
    if (!this.#closed && this.#waiting) this.#after(this.#outbox.size === 0 ? 'sent' : 'full')
  }

  /** Hands over all that there is, after the other end's death; says why it stopped. */
  drain(): NoPacket {
    while (!this.#closed) {
      const found = this.#next()
      if (found !== undefined) return found
    }
    return this.#last
  }

  /** Closes this end. Nothing is called back any more. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#retry)
    clearTimeout(this.#again)
    this.#outbox.dropAll('')
    this.#watch.close()
    closeFd(this.fd)
  }

  #onReady({ readable, writable, disconnect }: Readiness): void {
    if (readable || disconnect) this.#read()
    if (!this.#closed && writable) this.#after(this.#outbox.flush())
  }

  #read(): void {
    for (let i = 0; i < TURN_PACKETS; i++) {
      const found = this.#next()
      if (this.#closed || found === 'none') return
      if (found === 'end') return this.#end()
      if (found === undefined) continue
      this.#again = setTimeout(() => this.#read(), NO_ROOM_MS)
      break
    }
    this.#want()
  }

  /** Hands over one packet; why there is none. */
  #next(): NoPacket | undefined {
    const packet = this.#reader.read(this.fd)
    if (packet === 'none' || packet === 'end') return packet
    const noRoom = packet === 'no room'
    if (noRoom !== this.#noRoom) {
      this.#noRoom = noRoom
      if (!noRoom) this.#want()
      this.#owner.noRoom?.(noRoom)
    }
    if (packet === 'no room') return packet
    this.#owner.packet(packet)
    return undefined
  }

  #after(sent: Sent): void {
    if (sent === 'gone') return this.#end()
    const waiting = sent === 'full'
    if (waiting !== this.#waiting) {
      this.#waiting = waiting
      this.#owner.waiting?.(waiting)
    }
    this.#want()
  }

  #want(): void {
    if (this.#closed) return
    // Full of bytes: writable says when. Full of descriptors: nothing does.
    const stuck = this.#waiting && waitWritable(this.fd, 0)
    if (stuck && !this.#retry)
      this.#retry = setTimeout(() => {
        this.#retry = undefined
        this.#after(this.#outbox.flush())
      }, RETRY_MS)
    this.#watch.want(!this.#noRoom, this.#waiting && !stuck)
  }

  /** It may have sent something before it went. */
  #end(): void {
    if (this.#closed) return
    this.#last = this.drain()
    if (this.#closed) return
    this.close()
    this.#owner.ended()
  }
}
