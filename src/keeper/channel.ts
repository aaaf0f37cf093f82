/**
 * How a device process and its keeper talk: a pair of packet sockets, each packet one operation, a name, a note and the
 * descriptors that go with them. Both ends use this file.
 *
 * A packet that was sent arrives, descriptors and all, even if its sender is killed in the next moment: nothing is ever
 * answered.
 */

import { closeFd, EAGAIN, ECONNRESET, ENOBUFS, ETOOMANYREFS } from '../ffi/libc.ts'
import { receiveBytes } from '../ffi/local-socket.ts'
import { Receiver, sendWithFds } from '../ffi/scm.ts'

/**
 * Keep, forget one, forget all that begin with, ready; from the keeper: that is all; both ways: are you there, I am.
 */
export type Operation = 'K' | 'F' | 'C' | 'R' | 'E' | 'P'

export interface Packet {
  operation: Operation
  name: string
  note: string
  fds: number[]
}

const PACKET_MAX = 128 << 10
const encoder = new TextEncoder()
const decoder = new TextDecoder()

export type Sent = 'sent' | 'full' | 'gone'

export function sendPacket(
  fd: number,
  operation: Operation,
  name: string,
  note = '',
  fds: readonly number[] = [],
): Sent {
  const sent = sendWithFds(fd, encoder.encode(`${operation}${name}\n${note}`), fds)
  if (sent > 0) return 'sent'
  return sent === -EAGAIN || sent === -ENOBUFS || sent === -ETOOMANYREFS ? 'full' : 'gone'
}

/** No packet has come; it is the last; the next one has descriptors, and this process has no room for them. */
export type NoPacket = 'none' | 'end' | 'no room'

export class PacketReader {
  readonly #bytes = new Uint8Array(new ArrayBuffer(PACKET_MAX))
  readonly #receiver: Receiver = new Receiver(this.#bytes)
  readonly #rest = new Uint8Array(new ArrayBuffer(128))

  /**
   * The next packet. It is looked at first and then taken out: one whose descriptors find no room stays where it is.
   */
  read(fd: number): Packet | NoPacket {
    const len = this.#receiver.receive(fd, 0, PACKET_MAX, true)
    if (len === -EAGAIN) return 'none'
    // The other end died with packets unread, which is said once, before the packets that it has sent.
    if (len === -ECONNRESET) return this.read(fd)
    if (len <= 0) return 'end'
    const { fds, truncated } = this.#receiver
    if (truncated) {
      for (const one of fds) closeFd(one)
      return 'no room'
    }
    // The kernel drops what does not fit into the buffer, and this message's copies of the descriptors.
    receiveBytes(fd, this.#rest)
    const text = decoder.decode(this.#bytes.subarray(0, len))
    const end = text.indexOf('\n')
    const operation = text[0] as Operation
    return { operation, name: text.slice(1, end), note: text.slice(end + 1), fds }
  }
}
