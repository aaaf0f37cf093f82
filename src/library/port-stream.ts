/**
 * A port as a Node stream: what the guest writes is read here, what is written here the guest reads.
 *
 * Nothing is kept beyond the two high-water marks: a reader that stops holds up the guest (or has bytes dropped and
 * counted, where the port's policy says so), and `write` waits while the guest does not read.
 */

import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import type { ReadableStream, WritableStream } from 'node:stream/web'
import type { WaitOptions } from '../client/abort.ts'
import type { PortInfo, PortStats } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import type { PortHandle } from './port-handle.ts'

export const HIGH_WATER_MARK: number = 64 << 10

type Done = (error?: Error | null) => void

/**
 * Emits `guest-open` and `guest-close` as well; `handle` has the typed events. The port stays in the guest when the
 * stream ends: `remove()` takes it away, `device.attach()` makes another stream for it.
 */
export class PortStream extends Duplex {
  readonly handle: PortHandle
  readonly #socket: Socket
  readonly #stop: () => void
  #letGo = false

  /** @internal `socket` is paused and carries the bytes of the port from here on. */
  constructor(socket: Socket, handle: PortHandle, highWaterMark: number = HIGH_WATER_MARK) {
    super({ highWaterMark, decodeStrings: true })
    this.handle = handle
    this.#socket = socket
    const forward = (event: 'guest-open' | 'guest-close') => (): void => void this.emit(event)
    const [open, close] = [forward('guest-open'), forward('guest-close')]
    handle.on('guest-open', open).on('guest-close', close)
    this.#stop = () => void handle.off('guest-open', open).off('guest-close', close)
    socket.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause()
    })
    socket.pause()
    socket.on('end', () => this.push(null))
    socket.on('error', (cause: NodeJS.ErrnoException) => {
      // Bytes that the guest has not read are lost with the port, which this program wanted.
      if (this.#letGo) return void this.destroy()
      const what = `the connection to port ${this.name ?? this.id} has ended`
      const errno = cause.code === undefined ? {} : { errno: cause.code }
      this.destroy(new VmchannelError('ERR_VMCHANNEL_CLOSED', what, { cause, ...errno }))
    })
    // The end has been seen before; a reader may not have come that far yet.
    socket.on('close', () => {
      if (!socket.readableEnded) this.destroy()
      else if (!this.writableFinished) this.end()
    })
  }

  /** Port number, QEMU's nr. */
  get id(): number {
    return this.handle.id
  }

  /** Name in the guest: /dev/virtio-ports/NAME. */
  get name(): string | null {
    return this.handle.name
  }

  /** Whether a program in the guest has the port open, as far as is known here. */
  get guestOpen(): boolean {
    return this.handle.guestOpen
  }

  /** Resolves when a program in the guest has the port open; at once where one has. */
  waitForGuest(options: WaitOptions = {}): Promise<void> {
    return this.handle.waitForGuest(options)
  }

  info(options: WaitOptions = {}): Promise<PortInfo> {
    return this.handle.info(options)
  }

  stats(options: WaitOptions = {}): Promise<PortStats> {
    return this.handle.stats(options)
  }

  resize(cols: number, rows: number, options: WaitOptions = {}): Promise<void> {
    return this.handle.resize(cols, rows, options)
  }

  /** Takes the port out of the guest; the stream ends. */
  remove(options: WaitOptions = {}): Promise<void> {
    this.#letGo = true
    return this.handle.remove(options)
  }

  /** @internal The device is about to end because this program wants it. */
  letGo(): void {
    this.#letGo = true
  }

  /** The same bytes as web streams, with the same back-pressure. The stream itself is theirs then. */
  web(): { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> } {
    return Duplex.toWeb(this)
  }

  /** Whether this stream alone keeps the program running. */
  ref(): this {
    this.#socket.ref()
    return this
  }

  unref(): this {
    this.#socket.unref()
    return this
  }

  override _read(): void {
    this.#socket.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#socket.write(chunk, done)
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    const last = chunks.length - 1
    this.#socket.cork()
    for (const [i, { chunk }] of chunks.entries())
      if (i === last) this.#socket.write(chunk, done)
      else this.#socket.write(chunk)
    this.#socket.uncork()
  }

  /** The guest's reader sees the end once all is read and the device has let go (`halfCloseMs`). */
  override _final(done: Done): void {
    if (this.#socket.destroyed) done()
    else this.#socket.end(() => done())
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#stop()
    this.#socket.destroy()
    done(error)
  }
}
