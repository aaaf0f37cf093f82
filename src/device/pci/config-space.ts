/**
 * PCI configuration space of a virtio function: header, virtio capabilities (§4.1.4) and MSI-X.
 *
 *     0x00 header   0x40 common   0x50 notify   0x64 ISR   0x74 device   0x84 PCI_CFG window   0x98 MSI-X
 *
 * Bytes with a mask of what the guest may write. QEMU answers for the BARs and the MSI-X table itself; the registers
 * behave here all the same, for machines that do not.
 */

import {
  PCI_BAR_MEM_64,
  PCI_BAR_PREFETCH,
  PCI_BASE_ADDRESS_0,
  PCI_CACHE_LINE_SIZE,
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_VNDR,
  PCI_CAPABILITY_LIST,
  PCI_CLASS_COMMUNICATION_OTHER,
  PCI_CLASS_REVISION,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_COMMAND_PARITY,
  PCI_COMMAND_SERR,
  PCI_CONFIG_SIZE,
  PCI_DEVICE_ID,
  PCI_DEVICE_ID_VIRTIO_BASE,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_LATENCY_TIMER,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_FLAGS_MASKALL,
  PCI_REVISION_MODERN,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_STATUS_INTERRUPT,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_ID_MIN,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
  PCI_VENDOR_ID_VIRTIO,
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_CAP_PCI_CFG,
  VIRTIO_PCI_CAP_SIZEOF,
} from '../../spec/pci.ts'
import type { Ledger } from '../../mem/ledger.ts'
import type { BarLayout } from './layout.ts'

const CAP_COMMON = 0x40
const CAP_NOTIFY = 0x50
const CAP_ISR = 0x64
const CAP_DEVICE = 0x74
const CAP_PCI_CFG = 0x84
const CAP_MSIX = 0x98
/** Where the four bytes of the PCI_CFG window are. */
const WINDOW = CAP_PCI_CFG + VIRTIO_PCI_CAP_SIZEOF

/** What the PCI_CFG window and the interrupt logic need of the function. */
export interface ConfigSpaceOwner {
  readBar(bar: number, offset: number, out: Uint8Array): void
  writeBar(bar: number, offset: number, data: Uint8Array): void
  /** COMMAND or the MSI-X control word has changed. */
  controlChanged(): void
}

export class ConfigSpace {
  #bytes: Uint8Array = new Uint8Array(PCI_CONFIG_SIZE)
  readonly #writable = new Uint8Array(PCI_CONFIG_SIZE)
  #view = new DataView(this.#bytes.buffer)
  readonly #mask = new DataView(this.#writable.buffer)
  readonly #initial: Uint8Array
  readonly #layout: BarLayout
  readonly #owner: ConfigSpaceOwner

  constructor(virtioId: number, layout: BarLayout, owner: ConfigSpaceOwner, ledger: Ledger) {
    this.#layout = layout
    this.#owner = owner
    const { bar, common, isr, device, notify } = layout
    this.#view.setUint16(PCI_VENDOR_ID, PCI_VENDOR_ID_VIRTIO, true)
    this.#view.setUint16(PCI_DEVICE_ID, PCI_DEVICE_ID_VIRTIO_BASE + virtioId, true)
    this.#view.setUint16(PCI_STATUS, PCI_STATUS_CAP_LIST, true)
    this.#view.setUint32(PCI_CLASS_REVISION, ((PCI_CLASS_COMMUNICATION_OTHER << 8) | PCI_REVISION_MODERN) >>> 0, true)
    this.#view.setUint16(PCI_SUBSYSTEM_VENDOR_ID, PCI_VENDOR_ID_VIRTIO, true)
    this.#view.setUint16(PCI_SUBSYSTEM_ID, PCI_SUBSYSTEM_ID_MIN + virtioId, true)
    this.#bytes[PCI_INTERRUPT_PIN] = 1
    this.#bytes[PCI_CAPABILITY_LIST] = CAP_COMMON
    const command =
      PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE
    this.#mask.setUint16(PCI_COMMAND, command, true)
    this.#writable[PCI_CACHE_LINE_SIZE] = 0xff
    this.#writable[PCI_LATENCY_TIMER] = 0xff
    this.#writable[PCI_INTERRUPT_LINE] = 0xff

    this.#bar(bar, layout.size, PCI_BAR_MEM_64 | PCI_BAR_PREFETCH)

    this.#cap(CAP_COMMON, CAP_NOTIFY, VIRTIO_PCI_CAP_COMMON_CFG, bar, common.offset, common.len)
    this.#cap(CAP_NOTIFY, CAP_ISR, VIRTIO_PCI_CAP_NOTIFY_CFG, bar, notify.offset, notify.len, layout.notifyMultiplier)
    this.#cap(CAP_ISR, CAP_DEVICE, VIRTIO_PCI_CAP_ISR_CFG, bar, isr.offset, isr.len)
    this.#cap(CAP_DEVICE, CAP_PCI_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, bar, device.offset, device.len)
    this.#cap(CAP_PCI_CFG, 0, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0, 0)
    // §4.1.4.9: bar, offset and length of the window are the driver's to write.
    this.#writable[CAP_PCI_CFG + 4] = 0xff
    this.#mask.setUint32(CAP_PCI_CFG + 8, 0xffffffff, true)
    this.#mask.setUint32(CAP_PCI_CFG + 12, 0xffffffff, true)

    if (layout.msix.vectors > 0) this.#msix(layout.msix)
    this.#initial = this.#bytes.slice()
    this.#bytes = ledger.bytes(PCI_CONFIG_SIZE)
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, PCI_CONFIG_SIZE)
    if (!ledger.resumed) this.reset()
  }

  get busMaster(): boolean {
    return (this.#view.getUint16(PCI_COMMAND, true) & PCI_COMMAND_MASTER) !== 0
  }
  get intxDisabled(): boolean {
    return (this.#view.getUint16(PCI_COMMAND, true) & PCI_COMMAND_INTX_DISABLE) !== 0
  }
  get msixEnabled(): boolean {
    return (this.#view.getUint16(CAP_MSIX + 2, true) & PCI_MSIX_FLAGS_ENABLE) !== 0
  }

  /** Mirrors the interrupt into the status register (§4.1.4.5.1). */
  setInterruptStatus(pending: boolean): void {
    if (pending) this.#bytes[PCI_STATUS]! |= PCI_STATUS_INTERRUPT
    else this.#bytes[PCI_STATUS]! &= ~PCI_STATUS_INTERRUPT
  }

  reset(): void {
    this.#bytes.set(this.#initial)
  }

  read(offset: number, out: Uint8Array): void {
    if (offset < WINDOW + 4 && offset + out.length > WINDOW) this.#readWindow()
    out.fill(0)
    if (offset < PCI_CONFIG_SIZE) out.set(this.#bytes.subarray(offset, offset + out.length))
  }

  write(offset: number, data: Uint8Array): void {
    for (let i = 0; i < data.length && offset + i < PCI_CONFIG_SIZE; i++) {
      const mask = this.#writable[offset + i]!
      this.#bytes[offset + i] = (this.#bytes[offset + i]! & ~mask) | (data[i]! & mask)
    }
    if (offset < WINDOW + 4 && offset + data.length > WINDOW) this.#writeWindow(offset, data)
    this.#owner.controlChanged()
  }

  /** §4.1.4.9: the access that the window stands for; undefined while what the driver wrote makes none. */
  #window(): { bar: number; offset: number; len: number } | undefined {
    const bar = this.#bytes[CAP_PCI_CFG + 4]!
    const offset = this.#view.getUint32(CAP_PCI_CFG + 8, true)
    const len = this.#view.getUint32(CAP_PCI_CFG + 12, true)
    const right = (len === 1 || len === 2 || len === 4) && offset % len === 0
    return right && bar === this.#layout.bar && offset + len <= this.#layout.size ? { bar, offset, len } : undefined
  }

  #readWindow(): void {
    const at = this.#window()
    if (at) this.#owner.readBar(at.bar, at.offset, this.#bytes.subarray(WINDOW, WINDOW + at.len))
  }

  #writeWindow(offset: number, data: Uint8Array): void {
    for (let i = 0; i < data.length; i++) {
      const at = offset + i
      if (at >= WINDOW && at < WINDOW + 4) this.#bytes[at] = data[i]!
    }
    const at = this.#window()
    if (at) this.#owner.writeBar(at.bar, at.offset, this.#bytes.slice(WINDOW, WINDOW + at.len))
  }

  #msix({ bar, size, vectors, pba }: BarLayout['msix']): void {
    this.#bar(bar, size, 0)
    this.#bytes[CAP_PCI_CFG + 1] = CAP_MSIX
    this.#bytes[CAP_MSIX] = PCI_CAP_ID_MSIX
    this.#view.setUint16(CAP_MSIX + 2, vectors - 1, true)
    this.#mask.setUint16(CAP_MSIX + 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, true)
    this.#view.setUint32(CAP_MSIX + 4, bar, true)
    this.#view.setUint32(CAP_MSIX + 8, pba | bar, true)
  }

  #bar(bar: number, size: number, type: number): void {
    const at = PCI_BASE_ADDRESS_0 + 4 * bar
    this.#view.setUint32(at, type, true)
    this.#mask.setUint32(at, ~(size - 1) >>> 0, true)
    if (type & PCI_BAR_MEM_64) this.#mask.setUint32(at + 4, 0xffffffff, true)
  }

  #cap(at: number, next: number, type: number, bar: number, offset: number, len: number, extra?: number): void {
    this.#bytes[at] = PCI_CAP_ID_VNDR
    this.#bytes[at + 1] = next
    this.#bytes[at + 2] = VIRTIO_PCI_CAP_SIZEOF + (extra === undefined ? 0 : 4)
    this.#bytes[at + 3] = type
    this.#bytes[at + 4] = bar
    this.#view.setUint32(at + 8, offset, true)
    this.#view.setUint32(at + 12, len, true)
    if (extra !== undefined) this.#view.setUint32(at + VIRTIO_PCI_CAP_SIZEOF, extra, true)
  }
}
