/**
 * The host's ends of ports, as programs have them: sockets, and descriptors of fifos and terminals.
 */

import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Watch } from '../src/ffi/poll.ts'

export interface Peer {
  /** What has come and nobody has taken. */
  received: Buffer
  readonly gone: boolean
  write(bytes: Buffer): Promise<void>
  reading(on: boolean): void
  close(): void
}

export class SocketPeer implements Peer {
  received: Buffer = Buffer.alloc(0)
  gone = false
  readonly #socket: Socket

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (bytes: Buffer) => (this.received = Buffer.concat([this.received, bytes])))
    socket.on('error', () => {})
    socket.on('close', () => (this.gone = true))
    socket.on('end', () => (this.gone = true))
    socket.resume()
  }

  static async connect(place: string | { port: number; host: string }): Promise<SocketPeer> {
    const socket = typeof place === 'string' ? connect(place) : connect(place)
    const peer = new SocketPeer(socket)
    await once(socket, 'connect')
    return peer
  }

  async write(bytes: Buffer): Promise<void> {
    if (this.#socket.destroyed) throw new Error('the peer was hung up on')
    await new Promise<void>((resolve) => this.#socket.write(bytes, () => resolve()))
  }

  reading(on: boolean): void {
    if (on) this.#socket.resume()
    else this.#socket.pause()
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** A pair of descriptors, or one for both. */
export class FilePeer implements Peer {
  received: Buffer = Buffer.alloc(0)
  gone = false
  readonly #input: number
  readonly #output: number
  readonly #watch: Watch
  readonly #buffer = Buffer.alloc(64 << 10)

  constructor(input: string, output: string = input) {
    const flags = constants.O_NONBLOCK | constants.O_NOCTTY
    this.#input = openSync(input, constants.O_RDWR | flags)
    this.#output = output === input ? this.#input : openSync(output, constants.O_RDWR | flags)
    this.#watch = new Watch(this.#input, () => this.#read())
    this.#watch.want(true, false)
  }

  async write(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length;)
      try {
        at += writeSync(this.#output, bytes, at)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
  }

  reading(on: boolean): void {
    this.#watch.want(on, false)
  }

  close(): void {
    if (this.gone) return
    this.gone = true
    this.#watch.close()
    closeSync(this.#input)
    if (this.#output !== this.#input) closeSync(this.#output)
  }

  #read(): void {
    try {
      for (let got = 1; got > 0;) {
        got = readSync(this.#input, this.#buffer)
        this.received = Buffer.concat([this.received, this.#buffer.subarray(0, got)])
      }
    } catch {
      // EAGAIN
    }
  }
}
