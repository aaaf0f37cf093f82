/** The registers of virtio over PCI by name, in their natural widths (§4.1.3.1), for drivers that obey no rule but that. */

import { findMsix, findStructures, type MsixCapability, type VirtioStructures } from '../../src/driver/capabilities.ts'
import { PciRegisters, type PciAccess } from '../../src/driver/pci-registers.ts'
import {
  PCI_COMMAND,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  VIRTIO_PCI_COMMON_CFGGENERATION,
  VIRTIO_PCI_COMMON_DF,
  VIRTIO_PCI_COMMON_DFSELECT,
  VIRTIO_PCI_COMMON_GF,
  VIRTIO_PCI_COMMON_GFSELECT,
  VIRTIO_PCI_COMMON_MSIX,
  VIRTIO_PCI_COMMON_NUMQ,
  VIRTIO_PCI_COMMON_Q_AVAILLO,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_ENABLE,
  VIRTIO_PCI_COMMON_Q_MSIX,
  VIRTIO_PCI_COMMON_Q_NDATA,
  VIRTIO_PCI_COMMON_Q_NOFF,
  VIRTIO_PCI_COMMON_Q_RESET,
  VIRTIO_PCI_COMMON_Q_SELECT,
  VIRTIO_PCI_COMMON_Q_SIZE,
  VIRTIO_PCI_COMMON_Q_USEDLO,
  VIRTIO_PCI_COMMON_STATUS,
} from '../../src/spec/pci.ts'

export type CommonRegister =
  | 'device_feature_select'
  | 'device_feature'
  | 'driver_feature_select'
  | 'driver_feature'
  | 'config_msix_vector'
  | 'num_queues'
  | 'device_status'
  | 'config_generation'
  | 'queue_select'
  | 'queue_size'
  | 'queue_msix_vector'
  | 'queue_enable'
  | 'queue_notify_off'
  | 'queue_desc_lo'
  | 'queue_desc_hi'
  | 'queue_driver_lo'
  | 'queue_driver_hi'
  | 'queue_device_lo'
  | 'queue_device_hi'
  | 'queue_notify_data'
  | 'queue_reset'

/** Offset and width of each register of the common configuration (§4.1.4.3). */
const COMMON: Readonly<Record<CommonRegister, readonly [number, 1 | 2 | 4]>> = {
  device_feature_select: [VIRTIO_PCI_COMMON_DFSELECT, 4],
  device_feature: [VIRTIO_PCI_COMMON_DF, 4],
  driver_feature_select: [VIRTIO_PCI_COMMON_GFSELECT, 4],
  driver_feature: [VIRTIO_PCI_COMMON_GF, 4],
  config_msix_vector: [VIRTIO_PCI_COMMON_MSIX, 2],
  num_queues: [VIRTIO_PCI_COMMON_NUMQ, 2],
  device_status: [VIRTIO_PCI_COMMON_STATUS, 1],
  config_generation: [VIRTIO_PCI_COMMON_CFGGENERATION, 1],
  queue_select: [VIRTIO_PCI_COMMON_Q_SELECT, 2],
  queue_size: [VIRTIO_PCI_COMMON_Q_SIZE, 2],
  queue_msix_vector: [VIRTIO_PCI_COMMON_Q_MSIX, 2],
  queue_enable: [VIRTIO_PCI_COMMON_Q_ENABLE, 2],
  queue_notify_off: [VIRTIO_PCI_COMMON_Q_NOFF, 2],
  queue_desc_lo: [VIRTIO_PCI_COMMON_Q_DESCLO, 4],
  queue_desc_hi: [VIRTIO_PCI_COMMON_Q_DESCLO + 4, 4],
  queue_driver_lo: [VIRTIO_PCI_COMMON_Q_AVAILLO, 4],
  queue_driver_hi: [VIRTIO_PCI_COMMON_Q_AVAILLO + 4, 4],
  queue_device_lo: [VIRTIO_PCI_COMMON_Q_USEDLO, 4],
  queue_device_hi: [VIRTIO_PCI_COMMON_Q_USEDLO + 4, 4],
  queue_notify_data: [VIRTIO_PCI_COMMON_Q_NDATA, 2],
  queue_reset: [VIRTIO_PCI_COMMON_Q_RESET, 2],
}

export class RawRegisters {
  readonly access: PciAccess
  readonly pci: PciRegisters
  readonly structures: VirtioStructures
  readonly msix: MsixCapability | undefined
  /** Where each queue is notified, in the BAR of the notifications. */
  readonly notifyAt: Map<number, number> = new Map()

  constructor(access: PciAccess) {
    this.access = access
    this.pci = new PciRegisters(access)
    this.structures = findStructures(this.pci, access.barSizes)
    this.msix = findMsix(this.pci)
    this.busMaster(true)
  }

  busMaster(on: boolean): void {
    const command = this.pci.config16(PCI_COMMAND) & ~(PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY)
    this.pci.setConfig16(PCI_COMMAND, command | PCI_COMMAND_MEMORY | (on ? PCI_COMMAND_MASTER : 0))
  }

  read(name: CommonRegister): number {
    const [register, width] = COMMON[name]
    const { bar, offset } = this.structures.common
    if (width === 1) return this.pci.bar8(bar, offset + register)
    return width === 2 ? this.pci.bar16(bar, offset + register) : this.pci.bar32(bar, offset + register)
  }

  write(name: CommonRegister, value: number): void {
    const [register, width] = COMMON[name]
    const { bar, offset } = this.structures.common
    if (width === 1) this.pci.setBar8(bar, offset + register, value)
    else if (width === 2) this.pci.setBar16(bar, offset + register, value)
    else this.pci.setBar32(bar, offset + register, value)
  }

  /** Whether the device's common configuration is long enough for a register. */
  has(name: CommonRegister): boolean {
    const [register, width] = COMMON[name]
    return register + width <= this.structures.common.len
  }

  /** Any access to the common configuration, whatever its width and place. */
  readCommon(at: number, len: number): Uint8Array {
    const { bar, offset } = this.structures.common
    const out = new Uint8Array(len)
    this.access.readBar(bar, offset + at, out)
    return out
  }
  writeCommon(at: number, data: Uint8Array): void {
    const { bar, offset } = this.structures.common
    this.access.writeBar(bar, offset + at, data)
  }
  /** Device configuration, byte by byte or in words; where it is shorter, undefined. */
  config(at: number, width: 1 | 2 | 4): number {
    const { device } = this.structures
    if (!device) return 0
    const place = device.offset + at
    if (width === 1) return this.pci.bar8(device.bar, place)
    return width === 2 ? this.pci.bar16(device.bar, place) : this.pci.bar32(device.bar, place)
  }
  setConfig32(at: number, value: number): void {
    const { device } = this.structures
    if (device) this.pci.setBar32(device.bar, device.offset + at, value)
  }

  /** Reading takes what it says (§4.1.4.5). */
  isr(): number {
    return this.pci.bar8(this.structures.isr.bar, this.structures.isr.offset)
  }

  select(queue: number): this {
    this.write('queue_select', queue)
    return this
  }

  features(): bigint {
    const word = (select: number): bigint => {
      this.write('device_feature_select', select)
      return BigInt(this.read('device_feature'))
    }
    return word(0) | (word(1) << 32n)
  }

  setFeatures(features: bigint): void {
    for (const select of [0, 1]) {
      this.write('driver_feature_select', select)
      this.write('driver_feature', Number((features >> BigInt(32 * select)) & 0xffffffffn))
    }
  }

  setAddress(which: 'desc' | 'driver' | 'device', address: number): void {
    this.write(`queue_${which}_lo`, address % 2 ** 32)
    this.write(`queue_${which}_hi`, Math.floor(address / 2 ** 32))
  }

  /** Tells the device of buffers in a queue: where it said it wants to hear of them, or where the queue would be. */
  notify(queue: number): void {
    let at = this.notifyAt.get(queue)
    if (at === undefined) {
      const { notify } = this.structures
      at = notify.offset + this.select(queue).read('queue_notify_off') * notify.multiplier
      this.notifyAt.set(queue, at)
    }
    this.pci.setBar16(this.structures.notify.bar, at, queue)
  }
}
