/**
 * Packets that wait for room in a channel: of each key the latest, in the order in which the keys came. So there are
 * never more than there are things to tell, however slow the other end is. Used by channel-end.ts.
 */

import { closeFd } from '../ffi/libc.ts'
import { duplicate } from '../ffi/local-socket.ts'
import { waitWritable } from '../ffi/rw.ts'
import { sendPacket, type Packet, type Sent } from './channel.ts'

export class Outbox {
  readonly #fd: number
  readonly #copies: boolean
  readonly #patienceMs: number
  readonly #onSent: (packet: Packet) => void
  readonly #waiting = new Map<string, Packet>()

  /**
   * `copies`: the descriptors of a packet may be closed as soon as it was posted, so that what waits has its own.
   * `patienceMs`: how long a packet may hold up its sender where none waits before it.
   */
  constructor(fd: number, copies: boolean, patienceMs: number, onSent: (packet: Packet) => void = () => {}) {
    this.#fd = fd
    this.#copies = copies
    this.#patienceMs = patienceMs
    this.#onSent = onSent
  }

  get size(): number {
    return this.#waiting.size
  }

  /** Sends the packet, or lets it wait in place of the one that waits under the same key. Throws where it cannot. */
  post(key: string, packet: Packet): Sent {
    if (this.#waiting.size === 0) {
      const sent = this.#sendSoon(packet)
      if (sent !== 'full') return sent
    }
    const fds = this.#copies ? packet.fds.map((fd) => duplicate(fd)) : packet.fds
    this.#release(this.#waiting.get(key))
    this.#waiting.set(key, { ...packet, fds })
    return 'full'
  }

  /** Nobody needs to be told any more. */
  drop(key: string): void {
    this.#release(this.#waiting.get(key))
    this.#waiting.delete(key)
  }

  /** The same for all keys that begin with this. */
  dropAll(prefix: string): void {
    for (const key of this.#waiting.keys()) if (key.startsWith(prefix)) this.drop(key)
  }

  /** Sends what there is room for. */
  flush(): Sent {
    for (const [key, packet] of this.#waiting) {
      const sent = this.#send(packet)
      if (sent !== 'sent') return sent
      this.drop(key)
    }
    return 'sent'
  }

  #sendSoon(packet: Packet): Sent {
    const deadline = performance.now() + this.#patienceMs
    for (;;) {
      const sent = this.#send(packet)
      if (sent !== 'full' || performance.now() >= deadline) return sent
      // Writable at once: no room for descriptors, of which nothing tells.
      waitWritable(this.#fd, 1)
    }
  }

  #send(packet: Packet): Sent {
    const { operation, name, note, fds } = packet
    const sent = sendPacket(this.#fd, operation, name, note, fds)
    if (sent === 'sent') this.#onSent(packet)
    return sent
  }

  #release(packet: Packet | undefined): void {
    if (packet && this.#copies) for (const fd of packet.fds) closeFd(fd)
  }
}
