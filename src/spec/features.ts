/**
 * Feature bits as masks: the console's own (§5.3.3) and the reserved ones (§6).
 *
 * 64-bit masks are BigInt: they are touched a few times per driver life, never on the data path.
 */

// §5.3.3, device type specific
export const VIRTIO_CONSOLE_F_SIZE: bigint = 1n << 0n
export const VIRTIO_CONSOLE_F_MULTIPORT: bigint = 1n << 1n
export const VIRTIO_CONSOLE_F_EMERG_WRITE: bigint = 1n << 2n

// §6, of the ring and the transport
export const VIRTIO_F_NOTIFY_ON_EMPTY: bigint = 1n << 24n // legacy, §6.3
export const VIRTIO_F_ANY_LAYOUT: bigint = 1n << 27n // legacy, §6.3
export const VIRTIO_RING_F_INDIRECT_DESC: bigint = 1n << 28n
export const VIRTIO_RING_F_EVENT_IDX: bigint = 1n << 29n
export const VIRTIO_F_VERSION_1: bigint = 1n << 32n
export const VIRTIO_F_ACCESS_PLATFORM: bigint = 1n << 33n
export const VIRTIO_F_RING_PACKED: bigint = 1n << 34n
export const VIRTIO_F_IN_ORDER: bigint = 1n << 35n
export const VIRTIO_F_ORDER_PLATFORM: bigint = 1n << 36n
export const VIRTIO_F_NOTIFICATION_DATA: bigint = 1n << 38n
export const VIRTIO_F_RING_RESET: bigint = 1n << 40n

const NAMES: readonly (readonly [bigint, string])[] = [
  [VIRTIO_CONSOLE_F_SIZE, 'SIZE'],
  [VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT'],
  [VIRTIO_CONSOLE_F_EMERG_WRITE, 'EMERG_WRITE'],
  [VIRTIO_F_NOTIFY_ON_EMPTY, 'NOTIFY_ON_EMPTY'],
  [VIRTIO_F_ANY_LAYOUT, 'ANY_LAYOUT'],
  [VIRTIO_RING_F_INDIRECT_DESC, 'INDIRECT_DESC'],
  [VIRTIO_RING_F_EVENT_IDX, 'EVENT_IDX'],
  [VIRTIO_F_VERSION_1, 'VERSION_1'],
  [VIRTIO_F_ACCESS_PLATFORM, 'ACCESS_PLATFORM'],
  [VIRTIO_F_RING_PACKED, 'RING_PACKED'],
  [VIRTIO_F_IN_ORDER, 'IN_ORDER'],
  [VIRTIO_F_ORDER_PLATFORM, 'ORDER_PLATFORM'],
  [VIRTIO_F_NOTIFICATION_DATA, 'NOTIFICATION_DATA'],
  [VIRTIO_F_RING_RESET, 'RING_RESET'],
]

/** Names of the bits in a mask, for people; unknown ones as "bit N". */
export function featureNames(mask: bigint): string[] {
  const names: string[] = []
  for (let bit = 0n; bit < 64n; bit++) {
    if (!(mask & (1n << bit))) continue
    names.push(NAMES.find(([m]) => m === 1n << bit)?.[1] ?? `bit ${bit}`)
  }
  return names
}
