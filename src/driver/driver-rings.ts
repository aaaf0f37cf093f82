/** Memory for the rings of the driver half: one piece per queue, with the three parts at their alignments (§2.7). */

import { roundUp, type DmaBuffer, type DmaPool } from '../mem/dma-pool.ts'
import { DriverQueue } from '../ring/driver-queue.ts'
import type { RingAddresses } from '../ring/split-ring.ts'
import { VIRTQ_DESC_SIZE, VIRTQ_USED_ALIGN, virtqAvailLen, virtqUsedLen } from '../spec/split.ts'

/** Entries that a driver makes use of, where the device allows more. */
const SIZE_MAX = 256

export interface RingOptions {
  eventIdx: boolean
  /** Descriptors of an indirect table; 0: none. */
  indirect: number
  tolerant?: boolean
}

export interface DriverRing {
  readonly queue: DriverQueue
  readonly at: RingAddresses
  /** Gives the memory back; the device has been reset. */
  release(): void
}

export function makeRing(pool: DmaPool, index: number, sizeMax: number, options: RingOptions): DriverRing {
  const size = Math.min(sizeMax, SIZE_MAX)
  const avail = size * VIRTQ_DESC_SIZE
  const used = roundUp(avail + virtqAvailLen(size), VIRTQ_USED_ALIGN)
  const ring = pool.allocate(used + virtqUsedLen(size))
  const buffers: DmaBuffer[] = [ring]
  const at = { desc: ring.address, avail: ring.address + avail, used: ring.address + used }
  let indirect
  if (options.indirect > 0) {
    const tables = pool.allocate(size * options.indirect * VIRTQ_DESC_SIZE)
    buffers.push(tables)
    indirect = { ...tables, entries: options.indirect }
  }
  const queue = new DriverQueue(index, pool.memory, size, at, {
    eventIdx: options.eventIdx,
    indirect,
    tolerant: options.tolerant ?? false,
  })
  return {
    queue,
    at,
    release() {
      for (const buffer of buffers) pool.free(buffer)
    },
  }
}
