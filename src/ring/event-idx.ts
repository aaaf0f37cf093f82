/**
 * The EVENT_IDX rule, virtio 1.3 §2.7.7 and §2.7.10: has an index moved past the point the other side named?
 *
 * Indices run freely modulo 2^16. Going from `oldIdx` to `newIdx` made the entries oldIdx … newIdx - 1; the other side
 * asked to hear of entry `event`. That entry is among the new ones exactly when its distance back from newIdx - 1 is
 * smaller than their number, both taken modulo 2^16: right across the wrap, where comparing the values is not.
 */
export function needEvent(event: number, newIdx: number, oldIdx: number): boolean {
  return ((newIdx - event - 1) & 0xffff) < ((newIdx - oldIdx) & 0xffff)
}
