/**
 * Finds out whether the VMM really shares the guest's memory. With `share=off` QEMU hands over the memory's file all the
 * same and keeps the guest's writes to itself; the driver would then wait for ever for an answer, spinning.
 *
 * Called by vm.ts when the driver may let the device touch memory, before it asks whether the device takes it.
 */

import type { VfioUserServer } from '../device/attach/vfio-user/server.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'

const PROBE_LEN = 4096
/** Places of a PC's memory that are rarely empty: firmware data, the boot sector's and the usual places of a kernel. */
const PLACES = [0, 0x7000, 0x9f000, 0x10_0000, 0x20_0000, 0x100_0000, 0x100_1000, 0x120_0000, 0x200_0000]
/** Others: evenly spread over the largest piece of memory. */
const SPREAD = 16

/** 'different' as soon as one place is; 'unknown' where all that was looked at is empty. */
export async function probeCoherency(
  server: VfioUserServer,
  memory: GuestMemory,
): Promise<'same' | 'different' | 'unknown'> {
  for (const address of places(memory)) {
    const found = await server.checkCoherent(address, PROBE_LEN)
    if (found !== 'unknown') return found
    if (!server.attached) return 'unknown'
  }
  return 'unknown'
}

function places(memory: GuestMemory): number[] {
  const largest = memory.regions.reduce((a, b) => (a && a.size >= b.size ? a : b), memory.regions[0])
  if (!largest) return []
  const step = Math.floor(largest.size / SPREAD / PROBE_LEN) * PROBE_LEN
  const spread = Array.from({ length: SPREAD }, (_, i) => largest.base + i * step)
  return [...PLACES, ...spread].filter((address) => memory.region(address)?.writable)
}
