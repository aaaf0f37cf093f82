/** A daemon that is none: answers calls from a script, at the other end of a pair of streams. */
import { duplexPair } from '../support/duplex-pair.ts'
import type { Duplex } from 'node:stream'
import { XdrWriter } from '../../src/inspect/xdr.ts'

export interface Call {
  proc: number
  serial: number
  args: Buffer
}

export type Answer = (call: Call, daemon: FakeDaemon) => Buffer | undefined

export class FakeDaemon {
  /** For the client. */
  readonly stream: Duplex
  readonly calls: Call[] = []
  /** Cancellations that came. */
  cancelled = 0
  readonly #own: Duplex
  #held: Buffer = Buffer.alloc(0)

  constructor(answer: Answer) {
    const [stream, own] = duplexPair()
    this.stream = stream
    this.#own = own
    own.on('error', () => {})
    own.on('data', (chunk: Buffer) => {
      this.#held = Buffer.concat([this.#held, chunk])
      while (this.#held.length >= 4) {
        const word = this.#held.readUInt32BE(0)
        const len = word === 0xffff_eeee ? 0 : word
        if (this.#held.length < 4 + len) return
        const body = this.#held.subarray(4, 4 + len)
        this.#held = this.#held.subarray(4 + len)
        if (word === 0xffff_eeee) {
          this.cancelled++
          continue
        }
        const call = { proc: body.readUInt32BE(8), serial: body.readUInt32BE(16), args: body.subarray(40) }
        this.calls.push(call)
        const bytes = answer(call, this)
        if (bytes) this.send(bytes)
      }
    })
  }

  /** Raw bytes, to the client. */
  send(bytes: Uint8Array): boolean {
    return this.#own.write(bytes)
  }

  end(): void {
    this.#own.end()
  }
}

export function frame(body: Uint8Array): Buffer {
  return Buffer.concat([new XdrWriter().uint32(body.length).bytes(), body])
}

/** A reply with its length. */
export function reply({ proc, serial }: Pick<Call, 'proc' | 'serial'>, result: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = new XdrWriter().uint32(0x2000_f5f5).uint32(4).uint32(proc).uint32(1).uint32(serial)
  return frame(Buffer.concat([header.uint64(0).uint64(0).uint32(0).bytes(), result]))
}

export function refusal({ proc, serial }: Call, errno: string, message: string): Buffer {
  const header = new XdrWriter().uint32(0x2000_f5f5).uint32(4).uint32(proc).uint32(1).uint32(serial)
  return frame(header.uint64(0).uint64(0).uint32(1).string(errno).string(message).bytes())
}

export function chunk(data: Uint8Array, cancel = 0): Buffer {
  return frame(new XdrWriter().uint32(cancel).opaque(data).bytes())
}

export function text(value: string): Buffer {
  return new XdrWriter().string(value).bytes()
}

export function texts(values: readonly string[]): Buffer {
  const writer = new XdrWriter().uint32(values.length)
  for (const value of values) writer.string(value)
  return writer.bytes()
}
