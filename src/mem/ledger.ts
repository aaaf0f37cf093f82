/**
 * Memory for what a successor has to know: registers, positions, who is open. Laid out by the order of the calls, which
 * is the same in every process of one version, so that a process which takes over finds each field where it was left.
 *
 * With a keeper the memory is a shared file (daemon/keeper-link.ts makes it); without one it is memory like any other,
 * and the code that writes into it is the same. A process may be killed between any two stores: each field is one store
 * of at most eight bytes, and what belongs together is either in one field or mended by its reader.
 */

import { Receipts } from './receipts.ts'

/** Bytes of a shared ledger; more than the largest device takes. Pages that nobody touches cost nothing. */
export const LEDGER_LEN: number = 512 << 10

export class Ledger {
  /** Another process wrote in it before: its fields mean something. */
  readonly resumed: boolean
  readonly #bytes: Uint8Array | undefined
  readonly #address: number
  #used = 0

  /** Without bytes: a ledger for nobody but this process. */
  constructor(bytes?: Uint8Array, address = 0, resumed = false) {
    this.#bytes = bytes
    this.#address = address
    this.resumed = resumed
  }

  bytes(len: number): Uint8Array {
    return this.#take(len).bytes
  }

  u32(count: number): Uint32Array {
    const { bytes } = this.#take(4 * count)
    return new Uint32Array(bytes.buffer, bytes.byteOffset, count)
  }

  f64(count: number): Float64Array {
    const { bytes } = this.#take(8 * count)
    return new Float64Array(bytes.buffer, bytes.byteOffset, count)
  }

  /** Notes about bytes that move between a descriptor and one of `positions`; undefined where nobody would read them. */
  receipts(positions: Float64Array): Receipts | undefined {
    const taken = this.native(Receipts.LEN)
    return taken && new Receipts(taken.bytes, taken.address, positions)
  }

  /** Bytes that the kernel writes into; undefined where nobody would read them. */
  native(len: number): { bytes: Uint8Array; address: number } | undefined {
    const taken = this.#take(len)
    return taken.address === 0 ? undefined : taken
  }

  #take(len: number): { bytes: Uint8Array; address: number } {
    if (!this.#bytes) return { bytes: new Uint8Array(len), address: 0 }
    const at = this.#used
    this.#used = Math.ceil((at + len) / 8) * 8
    if (this.#used > this.#bytes.length) throw new RangeError(`the ledger has ${this.#bytes.length} bytes, all taken`)
    return { bytes: this.#bytes.subarray(at, at + len), address: this.#address + at }
  }
}
