/**
 * Reads exact numbers of bytes from a stream, and no more than asked for: what is not read holds up the sender. What
 * has come is copied into one buffer that grows, so that memory follows the bytes and not the chunks in which they
 * come.
 */

import type { Readable } from 'node:stream'
import { VmchannelError } from '../errors.ts'

const FIRST_LEN = 4096
/** A buffer that was needed once, for a large reply, is not kept. */
const KEEP_LEN = 1 << 20
const NOTHING = Buffer.alloc(0)

export class ByteReader {
  readonly #stream: Readable
  /** Bytes from #start to #end are not taken yet. */
  #buffer = NOTHING
  #start = 0
  #end = 0
  #failure: Error | undefined
  #wake: (() => void) | undefined

  constructor(stream: Readable) {
    this.#stream = stream
    stream.on('data', (chunk: Buffer) => {
      this.#add(chunk)
      stream.pause()
      this.#wake?.()
    })
    stream.pause()
    const end = (error?: Error): void => this.fail(error ?? closed())
    stream.on('end', () => end())
    stream.on('close', () => end())
    stream.on('error', end)
  }

  /** What waits, and all later reads, reject with this once the bytes are used up. */
  fail(error: Error): void {
    this.#failure ??= error
    this.#wake?.()
  }

  /** A copy. */
  async take(len: number): Promise<Buffer> {
    while (this.#end - this.#start < len) {
      if (this.#failure) throw this.#failure
      const more = new Promise<void>((resolve) => (this.#wake = resolve))
      this.#stream.resume()
      await more
      this.#wake = undefined
    }
    const bytes = Buffer.from(this.#buffer.subarray(this.#start, this.#start + len))
    this.#start += len
    if (this.#start === this.#end) {
      this.#start = this.#end = 0
      if (this.#buffer.length > KEEP_LEN) this.#buffer = NOTHING
    }
    return bytes
  }

  #add(chunk: Buffer): void {
    const held = this.#end - this.#start
    if (this.#end + chunk.length > this.#buffer.length) {
      // Twice what is held: each byte is moved a bounded number of times, whatever the chunks are.
      const need = held + chunk.length
      const larger =
        2 * need > this.#buffer.length ? Buffer.allocUnsafeSlow(Math.max(FIRST_LEN, 2 * need)) : this.#buffer
      this.#buffer.copy(larger, 0, this.#start, this.#end)
      this.#buffer = larger
      this.#start = 0
      this.#end = held
    }
    chunk.copy(this.#buffer, this.#end)
    this.#end += chunk.length
  }
}

function closed(): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the appliance has gone')
}
