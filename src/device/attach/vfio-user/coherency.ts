/**
 * Whether the guest memory that we mapped is the memory the guest sees. QEMU sends a descriptor even for
 * `share=off`, maps it privately itself, and then both sides look at different pages without any error.
 */

import type { GuestMemory } from '../../../mem/guest-memory.ts'
import type { Asks } from './asks.ts'

/** 'unknown': the VMM could not be asked, or both sides are zero, which proves nothing. */
export type Coherency = 'same' | 'different' | 'unknown'

const ATTEMPTS = 3

/** Compares [address, address + len), of which at most one page is looked at, through the VMM and through our mapping. */
export async function checkCoherency(
  asks: Asks,
  memory: GuestMemory,
  address: number,
  len: number,
): Promise<Coherency> {
  const size = Math.min(len, asks.limit)
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = copy(memory, address, size)
    if (!before) return 'unknown'
    const answer = await asks.read(address, size)
    const after = copy(memory, address, size)
    if (!answer || !after) return 'unknown'
    // The guest goes on writing meanwhile: each byte may be the old or the new one.
    for (const seen of [answer.data, answer.earlier])
      if (seen.every((byte, i) => byte === before[i] || byte === after[i]))
        return seen.some((byte) => byte !== 0) ? 'same' : 'unknown'
  }
  return 'different'
}

function copy(memory: GuestMemory, address: number, len: number): Uint8Array | undefined {
  const region = memory.region(address)
  if (!region) return undefined
  const at = address - region.base
  return at + len > region.bytes.length ? undefined : region.bytes.slice(at, at + len)
}
