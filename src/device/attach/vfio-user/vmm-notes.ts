/**
 * What a successor has to know of the VMM's connection besides its descriptors: which request was answered last. Used by
 * the careful stream and the session; lives in the device's ledger.
 */

import { MMSG, NO_RECEIPT } from '../../../mem/receipts.ts'
import type { Ledger } from '../../../mem/ledger.ts'

const DONE = 0
const REPLYING = 1
const LIMIT = 2
const VALID = 0x10000

export class VmmNotes {
  readonly #cells: Uint32Array
  /** The header of the reply's sendmmsg, into which the kernel writes that it was sent. */
  readonly header: { words: Uint32Array; address: number } | undefined

  constructor(ledger: Ledger) {
    this.#cells = ledger.u32(3)
    const native = ledger.native(MMSG.words * 4)
    if (native)
      this.header = {
        words: new Uint32Array(native.bytes.buffer, native.bytes.byteOffset, MMSG.words),
        address: native.address,
      }
  }

  clear(): void {
    this.#cells.fill(0)
  }

  /** Whether the VMM has been told that the device is its. */
  get attached(): boolean {
    return this.isDone(undefined)
  }

  /** Longest read that the VMM allows us. */
  get dataLimit(): number {
    return this.#cells[LIMIT]!
  }
  set dataLimit(len: number) {
    this.#cells[LIMIT] = len
  }

  /** The answer to request `id` is about to be sent. */
  replying(id: number): void {
    if (this.header) this.header.words[MMSG.len] = NO_RECEIPT
    this.#cells[REPLYING] = id | VALID
  }

  /** All is done that message `id` asks for. */
  done(id: number): void {
    this.#cells[DONE] = id | VALID
  }

  /** Whether request `id` is one that the process before had done, or answered; without an id, whether it had any. */
  isDone(id: number | undefined): boolean {
    const replied = this.header?.words[MMSG.len] !== NO_RECEIPT ? this.#cells[REPLYING]! : 0
    if (id === undefined) return ((this.#cells[DONE]! | replied) & VALID) !== 0
    return this.#cells[DONE] === (id | VALID) || replied === (id | VALID)
  }
}
