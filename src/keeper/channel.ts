/**
 * How a device process and its keeper talk: a pair of packet sockets, each packet one operation, a name, a note and the
 * descriptors that go with them. Both ends use this file.
 *
 * A packet that was sent arrives, descriptors and all, even if its sender is killed in the next moment: nothing is ever
 * answered.
 */

import { EAGAIN, ENOBUFS, ETOOMANYREFS } from '../ffi/libc.ts'
import { Receiver, sendWithFds } from '../ffi/scm.ts'

/** Keep, forget one, forget all that begin with, ready; and from the keeper: that is all. */
export type Operation = 'K' | 'F' | 'C' | 'R' | 'E'

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

export class PacketReader {
  readonly #bytes = new Uint8Array(new ArrayBuffer(PACKET_MAX))
  readonly #receiver: Receiver = new Receiver(this.#bytes)

  /** The next packet; undefined where none has come; null at the end. */
  read(fd: number): Packet | undefined | null {
    const len = this.#receiver.receive(fd, 0, PACKET_MAX)
    if (len === -EAGAIN) return undefined
    if (len <= 0) return null
    const text = decoder.decode(this.#bytes.subarray(0, len))
    const end = text.indexOf('\n')
    const operation = text[0] as Operation
    return { operation, name: text.slice(1, end), note: text.slice(end + 1), fds: this.#receiver.fds }
  }
}
