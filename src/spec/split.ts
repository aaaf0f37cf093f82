/** Split virtqueue layout, virtio 1.3 §2.7. Sizes and offsets in bytes, "size" of a queue in entries. */

/** A queue has a power of two entries, at most this many (§2.7). */
export const VIRTQ_SIZE_MAX = 32768

// Alignment of the three parts, §2.7
export const VIRTQ_DESC_ALIGN = 16
export const VIRTQ_AVAIL_ALIGN = 2
export const VIRTQ_USED_ALIGN = 4

// struct virtq_desc, §2.7.5: le64 addr, le32 len, le16 flags, le16 next
export const VIRTQ_DESC_SIZE = 16
export const VIRTQ_DESC_F_NEXT = 1
export const VIRTQ_DESC_F_WRITE = 2
export const VIRTQ_DESC_F_INDIRECT = 4

// struct virtq_avail, §2.7.6: le16 flags, le16 idx, le16 ring[size], le16 used_event
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1
export function virtqAvailLen(size: number): number {
  return 6 + 2 * size
}

// struct virtq_used, §2.7.8: le16 flags, le16 idx, {le32 id, le32 len}[size], le16 avail_event
export const VIRTQ_USED_F_NO_NOTIFY = 1
export const VIRTQ_USED_ELEM_SIZE = 8
export function virtqUsedLen(size: number): number {
  return 6 + VIRTQ_USED_ELEM_SIZE * size
}
