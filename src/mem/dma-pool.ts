/**
 * The driver half's own pages: memory that the device reaches too, cut into buffers.
 *
 * Whoever attaches says how pages are made known to the device (`grow`): a plain buffer in the device's map, an mmap
 * with an entry in the IOMMU. Buffers are powers of two, aligned to their own length up to a page, zeroed when they
 * are handed out, and come from free lists by length: nothing is searched, and pages are kept until the pool goes.
 */

import { VmchannelError } from '../errors.ts'
import { GuestMemory, type Region } from './guest-memory.ts'

export interface DmaBuffer {
  /** The address under which the device knows it. */
  readonly address: number
  readonly bytes: Uint8Array
}

/** Makes at least `len` bytes (a multiple of DMA_PAGE_SIZE), aligned to a page on both sides. */
export type GrowDma = (len: number) => Region

export const DMA_PAGE_SIZE = 4096
const LEN_MIN = 64
const CHUNK_LEN = 256 << 10

export interface DmaPoolOptions {
  /** Bytes the pool may take in all; default 256 MiB. */
  limit?: number
}

export class DmaPool {
  /** All pages of the pool, as the device addresses them: where the driver's rings are looked up. */
  readonly memory: GuestMemory = new GuestMemory()
  readonly #grow: GrowDma
  readonly #limit: number
  /** Free buffers by log2 of their length. */
  readonly #free: DmaBuffer[][] = []
  #chunk: Region | undefined
  #chunkUsed = 0
  /** Bytes taken from outside. */
  total = 0

  constructor(grow: GrowDma, options: DmaPoolOptions = {}) {
    this.#grow = grow
    this.#limit = options.limit ?? 256 << 20
  }

  /** A zeroed buffer of at least `len` bytes; `bytes` is exactly `len` long. */
  allocate(len: number): DmaBuffer {
    const order = orderOf(len)
    const { address, bytes } = this.#free[order]?.pop() ?? this.#carve(2 ** order)
    bytes.fill(0)
    return bytes.length === len ? { address, bytes } : { address, bytes: bytes.subarray(0, len) }
  }

  /** Takes a buffer back; its owner has made sure that the device does not know it any more. */
  free({ address, bytes }: DmaBuffer): void {
    const order = orderOf(bytes.length)
    const whole = new Uint8Array(bytes.buffer, bytes.byteOffset, 2 ** order)
    ;(this.#free[order] ??= []).push({ address, bytes: whole })
  }

  #carve(len: number): DmaBuffer {
    const align = Math.min(len, DMA_PAGE_SIZE)
    let at = roundUp(this.#chunkUsed, align)
    if (!this.#chunk || at + len > this.#chunk.size) {
      // What is left of the old chunk is lost: less than one buffer of the largest length in use.
      this.#chunk = this.#more(Math.max(CHUNK_LEN, roundUp(len, DMA_PAGE_SIZE)))
      at = 0
    }
    this.#chunkUsed = at + len
    return { address: this.#chunk.base + at, bytes: this.#chunk.bytes.subarray(at, at + len) }
  }

  #more(len: number): Region {
    if (this.total + len > this.#limit)
      throw new VmchannelError(
        'ERR_VMCHANNEL_MEMORY',
        `the driver's buffers would take more than ${this.#limit} bytes: ${this.total} are in use, ${len} more are needed`,
        { hint: 'Raise the limit, or use fewer or smaller buffers.' },
      )
    const region = this.#grow(len)
    this.memory.add(region)
    this.total += len
    return region
  }
}

/** The next multiple of `unit`; an exact multiple stays what it is. */
export function roundUp(n: number, unit: number): number {
  return Math.ceil(n / unit) * unit
}

/** log2 of the length of the buffer that holds `len` bytes. */
function orderOf(len: number): number {
  return Math.ceil(Math.log2(Math.max(len, LEN_MIN)))
}
