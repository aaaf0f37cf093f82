/**
 * Reads the header of a disk image, every read checked against the end of the file: an image that was cut off says so,
 * at whatever byte. Numbers are taken from one block that was read once. Used by disk-file.ts and the format checks.
 */

import { readSync } from 'node:fs'
import { cutOff } from './disk-errors.ts'

export class HeaderReader {
  readonly path: string
  /** Bytes of the file or device. */
  readonly size: number
  /** The first bytes, as many as there are: what QEMU is given of them, too (header-overlay.ts). */
  readonly head: Buffer
  readonly #fd: number

  constructor(path: string, fd: number, size: number, headLen: number) {
    this.path = path
    this.size = size
    this.#fd = fd
    const head = Buffer.alloc(headLen)
    this.head = head.subarray(0, readSync(fd, head, 0, headLen, 0))
  }

  /** `what` is named where the file ends before. Positions that no file has are an end as well. */
  block(at: number | bigint, len: number, what: string): Block {
    const start = Number(at)
    if (start >= 0 && start + len <= this.head.length)
      return new Block(this, this.head.subarray(start, start + len), what)
    if (start < 0 || start + len > this.size || !Number.isSafeInteger(start)) throw cutOff(this.path, what, this.size)
    const bytes = Buffer.alloc(len)
    if (readSync(this.#fd, bytes, 0, len, start) !== len) throw cutOff(this.path, what, this.size)
    return new Block(this, bytes, what)
  }

  has(at: number, magic: string): boolean {
    const end = at + magic.length
    if (at < 0 || end > this.size) return false
    if (end <= this.head.length) return this.head.toString('latin1', at, end) === magic
    return this.block(at, magic.length, 'header').text(0, magic.length) === magic
  }
}

/** Some bytes of a header, of a length that was asked for. */
export class Block {
  readonly bytes: Buffer
  readonly #reader: HeaderReader
  readonly #what: string

  constructor(reader: HeaderReader, bytes: Buffer, what: string) {
    this.#reader = reader
    this.bytes = bytes
    this.#what = what
  }

  u16le(at: number): number {
    return this.#within(at, 2).readUInt16LE(at)
  }
  u32le(at: number): number {
    return this.#within(at, 4).readUInt32LE(at)
  }
  u32be(at: number): number {
    return this.#within(at, 4).readUInt32BE(at)
  }
  u64le(at: number): bigint {
    return this.#within(at, 8).readBigUInt64LE(at)
  }
  u64be(at: number): bigint {
    return this.#within(at, 8).readBigUInt64BE(at)
  }
  text(at: number, len: number): string {
    return this.#within(at, len).toString('latin1', at, at + len)
  }
  isZero(at: number, len: number): boolean {
    return this.#within(at, len)
      .subarray(at, at + len)
      .every((byte) => byte === 0)
  }

  #within(at: number, len: number): Buffer {
    if (at + len > this.bytes.length) throw cutOff(this.#reader.path, this.#what, this.#reader.size)
    return this.bytes
  }
}
