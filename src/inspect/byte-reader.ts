/** Reads exact numbers of bytes from a stream, and no more than asked for: what is not read holds up the sender. */

import type { Readable } from 'node:stream'
import { VmchannelError } from '../errors.ts'

export class ByteReader {
  readonly #stream: Readable
  #chunks: Buffer[] = []
  #len = 0
  #failure: Error | undefined
  #wake: (() => void) | undefined

  constructor(stream: Readable) {
    this.#stream = stream
    stream.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#len += chunk.length
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

  async take(len: number): Promise<Buffer> {
    while (this.#len < len) {
      if (this.#failure) throw this.#failure
      const more = new Promise<void>((resolve) => (this.#wake = resolve))
      this.#stream.resume()
      await more
      this.#wake = undefined
    }
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    const rest = all.subarray(len)
    this.#chunks = rest.length > 0 ? [rest] : []
    this.#len = rest.length
    return all.subarray(0, len)
  }
}

function closed(): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the appliance has gone')
}
