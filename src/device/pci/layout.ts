/**
 * Where things lie in the BARs, for a function with a given number of queues.
 *
 *     BAR 4, 64-bit: 0x0000 common configuration   0x1000 ISR   0x2000 device configuration   0x3000 notify
 *     BAR 1, 32-bit: MSI-X table, then its pending bits
 */

import { PCI_MSIX_ENTRY_SIZE, VIRTIO_PCI_COMMON_CFG_SIZEOF } from '../../spec/pci.ts'

const PAGE = 0x1000

interface Span {
  readonly offset: number
  readonly len: number
}

export interface BarLayout {
  /** The BAR with the virtio structures. */
  readonly bar: number
  readonly size: number
  readonly common: Span
  readonly isr: Span
  readonly device: Span
  readonly notify: Span
  /** Bytes between the notify addresses of two queues (§4.1.4.4). */
  readonly notifyMultiplier: number
  /** No BAR at all where there are no vectors. */
  readonly msix: { readonly bar: number; readonly size: number; readonly vectors: number; readonly pba: number }
}

export function barLayout(queues: number, deviceConfigLen: number, vectors: number): BarLayout {
  const notifyMultiplier = 4
  const notify = { offset: 3 * PAGE, len: queues * notifyMultiplier }
  const table = vectors * PCI_MSIX_ENTRY_SIZE
  const pba = Math.max(PAGE / 2, roundUp(table, 8))
  return {
    bar: 4,
    size: powerOfTwo(notify.offset + notify.len),
    common: { offset: 0, len: VIRTIO_PCI_COMMON_CFG_SIZEOF },
    isr: { offset: PAGE, len: 1 },
    device: { offset: 2 * PAGE, len: deviceConfigLen },
    notify,
    notifyMultiplier,
    msix: { bar: 1, size: vectors && Math.max(PAGE, powerOfTwo(pba + roundUp(vectors, 64) / 8)), vectors, pba },
  }
}

/** The next multiple of `unit`, or `n` itself. */
function roundUp(n: number, unit: number): number {
  return Math.ceil(n / unit) * unit
}

function powerOfTwo(n: number): number {
  return 2 ** Math.ceil(Math.log2(n))
}
