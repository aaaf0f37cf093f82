/** Bytes that moved before another process took over, and that it had no time to note. */

import type { Batch } from './batch.ts'
import type { Direction } from './chain.ts'
import type { DeviceQueue } from './device-queue.ts'

/** Consumes `bytes` of them; returns how many of them there was a chain for. They were in the ring at one time. */
export function replay(queue: DeviceQueue, batch: Batch, direction: Direction, bytes: number): number {
  let left = bytes
  const end = queue.consumed + queue.size
  while (left > 0 && queue.consumed < end) {
    const found = Math.min(left, queue.gather(batch, direction, left))
    if (batch.count === 0) break
    queue.complete(batch, found)
    left -= found
  }
  return bytes - left
}
