/**
 * XDR (RFC 4506), as far as libguestfs's protocol needs it: big-endian words, 64-bit numbers, strings and lists padded
 * to four bytes. The reader trusts nothing: a length is checked against what is there before it is used.
 */

import { PeerFault } from '../errors.ts'

const PADDING = 3

/** Builds arguments. */
export class XdrWriter {
  readonly #parts: Buffer[] = []

  uint32(value: number): this {
    const word = Buffer.alloc(4)
    word.writeUInt32BE(value >>> 0)
    this.#parts.push(word)
    return this
  }

  uint64(value: number | bigint): this {
    const word = Buffer.alloc(8)
    word.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)))
    this.#parts.push(word)
    return this
  }

  bool(value: boolean): this {
    return this.uint32(value ? 1 : 0)
  }

  opaque(bytes: Uint8Array): this {
    this.uint32(bytes.length)
    this.#parts.push(Buffer.from(bytes), Buffer.alloc(-bytes.length & PADDING))
    return this
  }

  string(text: string): this {
    return this.opaque(Buffer.from(text))
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

/** Takes an answer apart. Whatever does not fit is a PeerFault. */
export class XdrReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  uint32(): number {
    return this.#take(4).readUInt32BE(0)
  }

  int32(): number {
    return this.#take(4).readInt32BE(0)
  }

  int64(): bigint {
    return this.#take(8).readBigInt64BE(0)
  }

  uint64(): bigint {
    return this.#take(8).readBigUInt64BE(0)
  }

  bool(): boolean {
    const value = this.uint32()
    if (value > 1) throw new PeerFault(`${value} is no boolean`)
    return value === 1
  }

  opaque(max: number = this.left): Buffer {
    const len = this.uint32()
    if (len > max || len > this.left)
      throw new PeerFault(`${len} bytes announced, ${Math.min(max, this.left)} possible`)
    const bytes = this.#take(len)
    this.#take(-len & PADDING)
    return bytes
  }

  /** What is no UTF-8 in it becomes U+FFFD: names on a disk may be anything. */
  string(max?: number): string {
    return this.opaque(max).toString()
  }

  /** A list; `smallest` is the least number of bytes that an item has, so that a count cannot ask for the moon. */
  list<T>(smallest: number, item: () => T): T[] {
    const count = this.uint32()
    if (count > this.left / smallest) throw new PeerFault(`a list of ${count} in ${this.left} bytes`)
    return Array.from({ length: count }, item)
  }

  strings(): string[] {
    return this.list(4, () => this.string())
  }

  /** Pairs in a flat list. */
  table(): [string, string][] {
    const flat = this.strings()
    if (flat.length % 2 !== 0) throw new PeerFault('a table with a key and no value')
    return Array.from({ length: flat.length / 2 }, (_, at) => [flat[2 * at]!, flat[2 * at + 1]!])
  }

  /** Nothing may be left over. */
  end(): void {
    if (this.left > 0) throw new PeerFault(`${this.left} bytes too many`)
  }

  #take(len: number): Buffer {
    if (len > this.left) throw new PeerFault(`the message ends ${len - this.left} bytes early`)
    return this.#bytes.subarray(this.#at, (this.#at += len))
  }
}
