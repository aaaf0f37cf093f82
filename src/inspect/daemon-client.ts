/**
 * The library's end of libguestfs's protocol: one call at a time to the daemon in the appliance, on any stream that
 * leads to it. The daemon reads disks of strangers: everything it says is checked, and a call cannot make this process
 * keep more than one message.
 */

import type { Duplex } from 'node:stream'
import { PeerFault, VmchannelError } from '../errors.ts'
import { ByteReader } from './byte-reader.ts'
import {
  CANCEL_WORD,
  LAUNCH_WORD,
  PROGRESS_LEN,
  PROGRESS_WORD,
  cancelWord,
  checkLength,
  decodeChunk,
  decodeReply,
  encodeCall,
} from './wire.ts'
import { XdrReader, XdrWriter } from './xdr.ts'

/** As libguestfs counts. */
const FIRST_SERIAL = 0x0012_3400

/** The daemon did what it was asked, and it did not work. */
export class DaemonError extends Error {
  readonly errno: string

  constructor(errno: string, message: string) {
    super(message)
    this.name = 'DaemonError'
    this.errno = errno
  }
}

export interface DaemonProgress {
  proc: number
  position: bigint
  total: bigint
}

export class DaemonClient {
  /** Calls made so far. */
  calls = 0
  readonly #stream: Duplex
  readonly #reader: ByteReader
  readonly #onProgress: (progress: DaemonProgress) => void
  #serial = FIRST_SERIAL
  #busy = false

  constructor(stream: Duplex, onProgress: (progress: DaemonProgress) => void = () => {}) {
    this.#stream = stream
    this.#reader = new ByteReader(stream)
    this.#onProgress = onProgress
  }

  /** Ends what waits with this reason. */
  fail(error: Error): void {
    this.#reader.fail(error)
  }

  /** Until the daemon says that it is up. */
  async launched(): Promise<void> {
    const word = (await this.#reader.take(4)).readUInt32BE(0)
    if (word !== LAUNCH_WORD) throw new PeerFault(`0x${word.toString(16)} where the daemon should say that it is up`)
  }

  /** Calls a procedure; `read` takes its result apart, all of it. */
  async call<T>(proc: number, args: XdrWriter | undefined, read: (result: XdrReader) => T): Promise<T> {
    return this.#alone(async () => {
      const result = await this.#roundTrip(proc, args)
      const value = read(result)
      result.end()
      return value
    })
  }

  /** Calls a procedure that sends a file. A file of more than `max` bytes is cancelled, and is an error. */
  async download(proc: number, args: XdrWriter, max: number): Promise<Buffer> {
    return this.#alone(async () => {
      const result = await this.#roundTrip(proc, args)
      result.end()
      const parts: Buffer[] = []
      let len = 0
      for (;;) {
        const chunk = decodeChunk(await this.#message('chunk'))
        if (chunk.cancelled) {
          if (len > max) throw new DaemonError('EFBIG', `more than ${max} bytes`)
          throw new DaemonError('', 'the daemon could not read on')
        }
        // It may have sent the last chunk before it heard of the cancellation.
        if (chunk.data.length === 0 && len > max) throw new DaemonError('EFBIG', `more than ${max} bytes`)
        if (chunk.data.length === 0) return Buffer.concat(parts)
        const before = len
        len += chunk.data.length
        if (len <= max) parts.push(Buffer.from(chunk.data))
        else if (before <= max) {
          parts.length = 0
          this.#stream.write(cancelWord())
        } else if (len - max > CANCEL_PATIENCE)
          throw new PeerFault('the daemon goes on sending a file that was cancelled')
      }
    })
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#busy) throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', 'two calls to the daemon at a time')
    this.#busy = true
    try {
      return await work()
    } finally {
      this.#busy = false
    }
  }

  async #roundTrip(proc: number, args: XdrWriter | undefined): Promise<XdrReader> {
    const serial = this.#serial++
    this.calls++
    this.#stream.write(encodeCall(proc, serial, args?.bytes() ?? Buffer.alloc(0)))
    const reply = decodeReply(await this.#message('message'))
    if (reply.proc !== proc || reply.serial !== serial) {
      throw new PeerFault(`the reply is to call ${reply.serial} (procedure ${reply.proc}), not ${serial} (${proc})`)
    }
    if (reply.error) throw new DaemonError(reply.error.errno, reply.error.message)
    return reply.result
  }

  /** The next message; progress and late cancellations before it are dealt with. */
  async #message(kind: 'message' | 'chunk'): Promise<Buffer> {
    for (;;) {
      const word = (await this.#reader.take(4)).readUInt32BE(0)
      if (word === PROGRESS_WORD) this.#progress(await this.#reader.take(PROGRESS_LEN))
      else if (word !== CANCEL_WORD) {
        checkLength(word, kind)
        return this.#reader.take(word)
      }
    }
  }

  #progress(body: Buffer): void {
    const reader = new XdrReader(body)
    const proc = reader.uint32()
    reader.uint32()
    this.#onProgress({ proc, position: reader.uint64(), total: reader.uint64() })
  }
}

/** What may still be under way when a transfer is cancelled: rings and socket buffers, with room to spare. */
const CANCEL_PATIENCE: number = 64 << 20
