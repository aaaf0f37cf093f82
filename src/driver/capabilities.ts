/**
 * Finds the virtio structures of a PCI function (§4.1.4): walks the capability list, which may lie, and keeps the first
 * usable one of each kind.
 */

import { PeerFault } from '../errors.ts'
import {
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_VNDR,
  PCI_CAPABILITY_LIST,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_FLAGS_MASKALL,
  PCI_MSIX_FLAGS_QSIZE,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_CAP_SIZEOF,
  VIRTIO_PCI_COMMON_CFG_SIZEOF_MIN,
} from '../spec/pci.ts'
import type { PciRegisters } from './pci-registers.ts'

/** Where a structure lies. */
export interface Structure {
  readonly bar: number
  readonly offset: number
  readonly len: number
}

export interface VirtioStructures {
  readonly common: Structure
  readonly notify: Structure & { readonly multiplier: number }
  readonly isr: Structure
  /** Device configuration; a device without any has none. */
  readonly device: Structure | undefined
}

export interface MsixCapability {
  /** Where it is in configuration space. */
  readonly at: number
  /** Entries of the table. */
  readonly vectors: number
}

/** Configuration space holds at most this many capabilities of 4 bytes behind the header; more is a loop. */
const CAPS_MAX = 48
const HEADER_LEN = 0x40
const BARS = 6

interface Kind {
  readonly name: string
  readonly lenMin: number
  readonly align: number
}

const KINDS: Readonly<Record<number, Kind>> = {
  [VIRTIO_PCI_CAP_COMMON_CFG]: { name: 'common configuration', lenMin: VIRTIO_PCI_COMMON_CFG_SIZEOF_MIN, align: 4 },
  [VIRTIO_PCI_CAP_NOTIFY_CFG]: { name: 'notification', lenMin: 2, align: 2 },
  [VIRTIO_PCI_CAP_ISR_CFG]: { name: 'ISR', lenMin: 1, align: 1 },
  [VIRTIO_PCI_CAP_DEVICE_CFG]: { name: 'device configuration', lenMin: 1, align: 4 },
}

/** PeerFault when one that every device must have is missing or unusable. */
export function findStructures(registers: PciRegisters, barSizes: readonly number[]): VirtioStructures {
  const found = new Map<number, Structure>()
  let multiplier = 0
  for (const at of capabilities(registers)) {
    if (registers.config8(at) !== PCI_CAP_ID_VNDR) continue
    const type = registers.config8(at + 3)
    const kind = KINDS[type]
    // Reserved types and BARs are ignored, longer capabilities and structures accepted (§4.1.4.1).
    if (!kind || found.has(type)) continue
    const needed = VIRTIO_PCI_CAP_SIZEOF + (type === VIRTIO_PCI_CAP_NOTIFY_CFG ? 4 : 0)
    if (registers.config8(at + 2) < needed || at + needed > 256) continue
    const structure = {
      bar: registers.config8(at + 4),
      offset: registers.config32(at + 8),
      len: registers.config32(at + 12),
    }
    if (!usable(structure, kind, barSizes)) continue
    found.set(type, structure)
    if (type === VIRTIO_PCI_CAP_NOTIFY_CFG) multiplier = registers.config32(at + VIRTIO_PCI_CAP_SIZEOF)
  }
  const must = (type: number): Structure => {
    const structure = found.get(type)
    if (!structure) throw new PeerFault(`the device has no usable ${KINDS[type]!.name} capability (§4.1.4)`)
    return structure
  }
  return {
    common: must(VIRTIO_PCI_CAP_COMMON_CFG),
    notify: { ...must(VIRTIO_PCI_CAP_NOTIFY_CFG), multiplier },
    isr: must(VIRTIO_PCI_CAP_ISR_CFG),
    device: found.get(VIRTIO_PCI_CAP_DEVICE_CFG),
  }
}

/** The MSI-X capability; undefined where the function has only its pin. */
export function findMsix(registers: PciRegisters): MsixCapability | undefined {
  const at = capabilities(registers).find((offset) => registers.config8(offset) === PCI_CAP_ID_MSIX)
  if (at === undefined) return undefined
  return { at, vectors: (registers.config16(at + 2) & PCI_MSIX_FLAGS_QSIZE) + 1 }
}

/** Turns MSI-X on or off; where a kernel does that (VFIO), this is not used. */
export function setMsix(registers: PciRegisters, { at }: MsixCapability, on: boolean): void {
  const flags = registers.config16(at + 2) & ~(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)
  registers.setConfig16(at + 2, flags | (on ? PCI_MSIX_FLAGS_ENABLE : 0))
}

function usable({ bar, offset, len }: Structure, kind: Kind, barSizes: readonly number[]): boolean {
  return bar < BARS && len >= kind.lenMin && offset % kind.align === 0 && offset + len <= (barSizes[bar] ?? 0)
}

/** Offsets of the capabilities, in the order of the list. */
function capabilities(registers: PciRegisters): number[] {
  const list: number[] = []
  if (!(registers.config16(PCI_STATUS) & PCI_STATUS_CAP_LIST)) return list
  // The two low bits of the pointers are reserved.
  let at = registers.config8(PCI_CAPABILITY_LIST) & ~3
  while (at >= HEADER_LEN && list.length < CAPS_MAX && !list.includes(at)) {
    list.push(at)
    at = registers.config8(at + 1) & ~3
  }
  return list
}
