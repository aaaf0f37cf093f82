/**
 * Walks one descriptor chain (§2.7.5) into a scatter/gather list.
 *
 * Every field is read once into a local, checked, then used: the driver may change the table while we look. The walk
 * is bounded by a number of descriptors, so a loop ends; an indirect table (§2.7.5.3) is at most one, and last.
 */

import { PeerFault } from '../errors.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'
import { IOVEC_MAX, type Iovec } from '../mem/iovec.ts'
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VIRTQ_DESC_SIZE } from '../spec/split.ts'
import type { SplitRing } from './split-ring.ts'

/** §2.7.4.2: all descriptors of a chain together hold at most 2^32 bytes. */
const CHAIN_LEN_MAX = 2 ** 32

/** Which part of a chain is wanted: what the device reads, or what it writes. */
export type Direction = 'readable' | 'writable'

/**
 * Appends the wanted part of the chain that starts at `head` to `list`, without its first `skip` bytes; returns the
 * length of the whole wanted part, in bytes. Where the list fills up, what is appended is a beginning of it. All
 * descriptors that were looked at are counted in `list.looked`: one chain can have 1025, and all can share one table.
 * PeerFault when the chain breaks a rule; the list may then hold some of it.
 */
export function walkChain(
  ring: SplitRing,
  memory: GuestMemory,
  head: number,
  direction: Direction,
  indirectAllowed: boolean,
  list: Iovec,
  skip: number,
): number {
  const wantWritable = direction === 'writable'
  let table = ring.desc
  let tableSize = ring.size
  let next = head
  // Linux puts up to a whole pipe into one indirect table, which may be longer than its queue (§2.7.5.3.1 forbids it).
  const most = Math.max(ring.size, IOVEC_MAX)
  let budget = most
  let indirect = false
  let seenWritable = false
  let total = 0
  let wanted = 0
  for (;;) {
    if (next >= tableSize) throw new PeerFault(`descriptor ${next} of a table of ${tableSize} (§2.7.5)`)
    if (budget-- === 0) throw new PeerFault('descriptor chain is longer than the queue, or loops (§2.7.5.2)')
    const at = next * 4
    const lo = table[at]!
    const hi = table[at + 1]!
    const len = table[at + 2]!
    const word = table[at + 3]!
    const flags = word & 0xffff
    const address = hi * 2 ** 32 + lo

    if (flags & VIRTQ_DESC_F_INDIRECT) {
      if (!indirectAllowed)
        throw new PeerFault('indirect descriptor, but INDIRECT_DESC was not negotiated (§2.7.5.3.1)')
      if (indirect) throw new PeerFault('indirect descriptor inside an indirect table (§2.7.5.3.1)')
      if (flags & VIRTQ_DESC_F_NEXT) throw new PeerFault('indirect descriptor with NEXT (§2.7.5.3.1)')
      if (len === 0 || len % VIRTQ_DESC_SIZE !== 0)
        throw new PeerFault(`indirect table of ${len} bytes is not a multiple of ${VIRTQ_DESC_SIZE} (§2.7.5.3)`)
      indirect = true
      tableSize = len / VIRTQ_DESC_SIZE
      // Only as much as the budget lets us look at has to be there.
      tableSize = Math.min(tableSize, budget)
      table = indirectTable(memory, address, tableSize)
      // An odd table is copied, all of it.
      if (address % 4 !== 0) list.looked += tableSize
      next = 0
      continue
    }

    const writable = (flags & VIRTQ_DESC_F_WRITE) !== 0
    if (seenWritable && !writable) throw new PeerFault('readable descriptor after a writable one (§2.7.4.2)')
    seenWritable ||= writable
    total += len
    if (total > CHAIN_LEN_MAX) throw new PeerFault('descriptor chain of more than 2^32 bytes (§2.7.5.2)')
    if (writable === wantWritable && len > 0) {
      wanted += len
      if (skip >= len) skip -= len
      else {
        memory.append(list, address + skip, len - skip, writable)
        skip = 0
      }
    }
    if (!(flags & VIRTQ_DESC_F_NEXT)) {
      list.looked += most - budget
      return wanted
    }
    next = word >>> 16
  }
}

function indirectTable(memory: GuestMemory, address: number, size: number): Uint32Array {
  const len = size * VIRTQ_DESC_SIZE
  const region = memory.contiguous(address, len, false)
  const offset = region.bytes.byteOffset + address - region.base
  if (offset % 4 === 0) return new Uint32Array(region.bytes.buffer, offset, size * 4)
  // The specification asks no alignment of an indirect table: copy an odd one.
  const copy = new Uint8Array(len)
  copy.set(region.bytes.subarray(address - region.base, address - region.base + len))
  return new Uint32Array(copy.buffer)
}
