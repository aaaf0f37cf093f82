/** The features of a console device: what it offers, and what it makes of a driver's choice. Called by console.ts. */

import type { Log } from '../log.ts'
import type { QueueFeatures } from '../ring/device-queue.ts'
import {
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../spec/features.ts'

/** All that is offered (§2.2, §5.3.3). */
export function consoleFeatures(multiport: boolean, iommuPlatform: boolean): bigint {
  return (
    VIRTIO_CONSOLE_F_SIZE |
    VIRTIO_CONSOLE_F_EMERG_WRITE |
    (multiport ? VIRTIO_CONSOLE_F_MULTIPORT : 0n) |
    VIRTIO_RING_F_INDIRECT_DESC |
    VIRTIO_RING_F_EVENT_IDX |
    VIRTIO_F_VERSION_1 |
    (iommuPlatform ? VIRTIO_F_ACCESS_PLATFORM : 0n) |
    VIRTIO_F_RING_RESET
  )
}

/** Whether a driver may go on with these; `refusal`: why no driver may. A valid choice that is refused is logged. */
export function accepts(offered: bigint, chosen: bigint, refusal: string | undefined, log: Log): boolean {
  if (!validChoice(offered, chosen)) return false
  const reason = platformRefusal(offered, chosen) ?? refusal
  if (reason !== undefined) log.error(`the guest's driver was refused: ${reason}`)
  return reason === undefined
}

/** §2.2.2 */
function validChoice(offered: bigint, chosen: bigint): boolean {
  return (chosen & ~offered) === 0n && (chosen & VIRTIO_F_VERSION_1) !== 0n
}

/** Why a driver with a valid choice cannot be served; undefined where it can. */
function platformRefusal(offered: bigint, chosen: bigint): string | undefined {
  // §6.2.2: a driver that does not know of the IOMMU gives addresses that mean nothing there.
  if ((offered & ~chosen & VIRTIO_F_ACCESS_PLATFORM) === 0n) return undefined
  return 'it does not accept ACCESS_PLATFORM, and the device is behind an IOMMU'
}

export function queueFeatures(accepted: bigint): QueueFeatures {
  return {
    eventIdx: (accepted & VIRTIO_RING_F_EVENT_IDX) !== 0n,
    indirect: (accepted & VIRTIO_RING_F_INDIRECT_DESC) !== 0n,
  }
}
