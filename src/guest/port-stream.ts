/**
 * A port as a Node stream, inside the guest: what the host writes is read here, what is written here the host reads. No
 * character device is between: bytes are copied once, from and to the buffers of the device.
 *
 * Nothing is kept beyond the two high-water marks: a reader that stops holds up the host, and `write` waits while the
 * host does not read, or is not there.
 */

import { Duplex } from 'node:stream'
import type { ReadableStream, WritableStream } from 'node:stream/web'
import { wait, type WaitOptions } from '../client/abort.ts'
import { WOULD_BLOCK } from '../chardev/chardev.ts'
import { VmchannelError } from '../errors.ts'
import type { Iovec } from '../mem/iovec.ts'
import type { GuestPort } from './port.ts'
import type { StreamChardev, StreamEnd } from './stream-chardev.ts'

export const HIGH_WATER_MARK: number = 256 << 10

type Done = (error?: Error | null) => void

/** What comes in bulk is copied into pieces of this length, and handed on as many of them as there are. */
const PIECE_LEN = 64 << 10
/** What comes by the way is copied into buffers of its own: a program may keep it for long. */
const SMALL_LEN = 4096

/** Time for the device to take what was written, when the stream is closed. */
const DRAIN_MS = 1000

/** Emits `host-open` and `host-close` as well; `port` has the typed events. */
export class GuestPortStream extends Duplex implements StreamEnd {
  readonly port: GuestPort
  readonly #chardev: StreamChardev
  readonly #stop: () => void
  /** For the host: writes that the device has not taken, the first one only to `#offset`. */
  #pending: Buffer[] = []
  #offset = 0
  #done: Done | undefined
  #writing = false
  /** From the host: pushed in the next tick, for the program's code must not run inside the driver. */
  #received: Buffer[] = []
  #receivedLen = 0
  /** What is left of the last piece. */
  #piece = NOTHING
  #full = false

  /** @internal Use `port.open()`. */
  constructor(port: GuestPort, chardev: StreamChardev, highWaterMark: number = HIGH_WATER_MARK) {
    super({ highWaterMark, decodeStrings: true })
    this.port = port
    this.#chardev = chardev
    const forward = (event: 'host-open' | 'host-close') => (): void => void this.emit(event)
    const [open, close] = [forward('host-open'), forward('host-close')]
    port.on('host-open', open).on('host-close', close)
    this.#stop = () => void port.off('host-open', open).off('host-close', close)
    if (!chardev.open(this))
      throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `port ${port.name ?? port.id} is open in this program already`)
  }

  /** Port number, QEMU's nr. */
  get id(): number {
    return this.port.id
  }

  get name(): string | null {
    return this.port.name
  }

  /** Whether somebody on the host is there. */
  get hostOpen(): boolean {
    return this.port.hostOpen
  }

  waitForHost(options: WaitOptions = {}): Promise<void> {
    return this.port.waitForHost(options)
  }

  /** Ends writing, waits until the device has taken all of it (one second at most), and closes the port. */
  async close(): Promise<void> {
    if (!this.destroyed) {
      const quiet = wait<void>('', { timeout: DRAIN_MS }, (resolve, reject) => {
        this.end(() => resolve())
        this.once('close', resolve).once('error', reject)
        return () => void this.off('close', resolve).off('error', reject)
      })
      await quiet.catch(() => {})
      const deadline = Date.now() + DRAIN_MS
      while (this.port.unsent > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2))
    }
    if (this.closed) return
    const closed = new Promise<void>((resolve) => this.once('close', () => resolve()))
    this.destroy()
    await closed
  }

  override [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** The same bytes as web streams, with the same back-pressure. The stream itself is theirs then. */
  web(): { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> } {
    return Duplex.toWeb(this)
  }

  // --- StreamEnd

  /** @internal */
  fromHost(list: Iovec): number {
    const room = this.readableHighWaterMark - this.readableLength - this.#receivedLen
    if (room <= 0) {
      this.#full = true
      return WOULD_BLOCK
    }
    if (this.#received.length === 0) process.nextTick(() => this.#push())
    const most = Math.min(list.total, room)
    let done = 0
    while (done < most) {
      const bytes = this.#place(most - done)
      done += list.copyTo(bytes, done)
      this.#received.push(bytes)
    }
    this.#receivedLen += done
    this.#full = done < list.total
    return done
  }

  /** @internal */
  toHost(list: Iovec): number {
    let done = 0
    let taken = 0
    for (const chunk of this.#pending) {
      const bytes = list.copyFrom(this.#offset === 0 ? chunk : chunk.subarray(this.#offset), done)
      done += bytes
      this.#offset += bytes
      if (this.#offset < chunk.length) break
      this.#offset = 0
      taken++
    }
    if (taken === 0) return done
    this.#pending.splice(0, taken)
    if (this.#pending.length === 0 && !this.#writing) process.nextTick(() => this.#settle(null))
    return done
  }

  /** @internal The port is gone: what came is still read, what was to be written is not. */
  gone(reason: VmchannelError, orderly: boolean): void {
    if (this.destroyed) return
    if (this.#pending.length > 0 || !orderly) return void this.destroy(reason)
    this.#push()
    this.allowHalfOpen = false
    this.push(null)
  }

  // --- Duplex

  override _read(): void {
    if (!this.#full) return
    this.#full = false
    // What is about to be read still counts as kept here, and nobody would ask again.
    process.nextTick(() => this.#chardev.writable())
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    if (chunk.length === 0) return done()
    this.#send([chunk], done)
  }

  /** Together: the fewer chains, the better. Bounded by the high-water mark and one write. */
  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    const all = chunks.map(({ chunk }) => chunk).filter(({ length }) => length > 0)
    if (all.length === 0) return done()
    this.#send(all, done)
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#stop()
    this.#chardev.release(this)
    this.#pending = []
    this.#received = []
    this.#receivedLen = 0
    this.#piece = NOTHING
    this.#settle(error)
    done(error)
  }

  #send(chunks: Buffer[], done: Done): void {
    if (this.port.removed) return done(new VmchannelError('ERR_VMCHANNEL_CLOSED', `port ${this.id} is gone`))
    this.#pending = chunks
    this.#offset = 0
    this.#done = done
    this.#writing = true
    this.#chardev.readable()
    this.#writing = false
    if (this.#pending.length === 0) this.#settle(null)
  }

  /** Where to copy what came: `len` bytes or fewer. */
  #place(len: number): Buffer {
    if (len <= SMALL_LEN && this.#received.length === 0) return Buffer.allocUnsafe(len)
    if (this.#piece.length === 0) this.#piece = Buffer.allocUnsafeSlow(PIECE_LEN)
    const bytes = this.#piece.subarray(0, len)
    this.#piece = this.#piece.subarray(len)
    return bytes
  }

  #settle(error: Error | null): void {
    const done = this.#done
    this.#done = undefined
    done?.(error)
  }

  #push(): void {
    const all = this.#received
    this.#received = []
    this.#receivedLen = 0
    if (!this.destroyed) for (const bytes of all) this.push(bytes)
  }
}

const NOTHING = Buffer.alloc(0)
