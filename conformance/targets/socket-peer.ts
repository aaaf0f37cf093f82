/** A host peer of a port over a unix socket: what QEMU's `-chardev socket,server=on` and our `unix:` listen at. */

import { once } from 'node:events'
import { connect } from 'node:net'
import type { HostPeer } from '../raw/machine.ts'

export async function connectPeer(path: string): Promise<HostPeer> {
  const socket = connect({ path, allowHalfOpen: true })
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(Buffer.from(chunk)))
  await once(socket, 'connect')
  socket.on('error', () => {})
  return {
    received: () => Buffer.concat(chunks),
    write: (bytes) => void socket.write(bytes),
    waiting: () => socket.writableLength,
    setReading: (on) => void (on ? socket.resume() : socket.pause()),
    close: () => void socket.destroy(),
  }
}
