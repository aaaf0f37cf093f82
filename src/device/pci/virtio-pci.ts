/**
 * A virtio device as a PCI function (§4.1): routes accesses to configuration space and the four structures of the BAR,
 * and turns the device's notifications into MSI-X or INTx.
 */

import type { GuestMemory } from '../../mem/guest-memory.ts'
import { Ledger } from '../../mem/ledger.ts'
import { CONSOLE_CONFIG_SIZEOF } from '../../spec/console.ts'
import { PCI_CONFIG_SIZE, VIRTIO_MSI_NO_VECTOR, VIRTIO_PCI_ISR_CONFIG, VIRTIO_PCI_ISR_QUEUE } from '../../spec/pci.ts'
import type { DeviceHost, VirtioDevice } from '../device.ts'
import { CommonConfig } from './common-config.ts'
import { ConfigSpace } from './config-space.ts'
import type { PciFunction, PciIrq } from './function.ts'
import { barLayout, type BarLayout } from './layout.ts'

/**
 * As many as QEMU's device has: one for configuration changes, one for all queues. A driver takes what is offered, and
 * a guest has not many: x86 gives the devices of a machine about 200 for each processor, and Linux would take 65 of
 * them for 31 ports. A VMM without KVM also looks at the eventfd of each vector in every turn of its loop.
 */
const VECTORS_DEFAULT = 2

export interface VirtioPciOptions {
  /** MSI-X vectors, 2 … 2048, or 0 for a function without MSI-X; default 2. */
  vectors?: number
  /** Where the registers live. */
  ledger?: Ledger
}

export class VirtioPci implements PciFunction, DeviceHost {
  readonly configSize: number = PCI_CONFIG_SIZE
  readonly barSizes: readonly number[]
  readonly vectors: number
  readonly intx: boolean = true
  readonly layout: BarLayout
  readonly #device: VirtioDevice
  readonly #common: CommonConfig
  readonly #config: ConfigSpace
  #irq: PciIrq | undefined
  readonly #isrCell: Uint8Array
  #level = false

  constructor(device: VirtioDevice, memory: GuestMemory, options: VirtioPciOptions = {}) {
    this.#device = device
    this.vectors = options.vectors ?? VECTORS_DEFAULT
    this.layout = barLayout(device.queueCount, CONSOLE_CONFIG_SIZEOF, this.vectors)
    this.barSizes = [0, this.layout.msix.size, 0, 0, this.layout.size, 0]
    const ledger = options.ledger ?? new Ledger()
    this.#isrCell = ledger.bytes(1)
    this.#common = new CommonConfig(device, memory, this.vectors, () => this.#clearIsr(), ledger)
    this.#config = new ConfigSpace(device.id, this.layout, this, ledger)
    device.connect(this)
    this.controlChanged()
    memory.onChange(() => device.memoryChanged())
  }

  /**
   * Goes on with the registers that another process left; memory and interrupts are connected. It may have died between
   * a used entry, or a change of the configuration, and its interrupt: all of them are raised.
   */
  resume(): void {
    this.controlChanged()
    this.#common.resume()
    if (!this.#common.driverOk) return
    for (let queue = 0; queue < this.#device.queueCount; queue++) this.interruptQueue(queue)
    this.configChanged()
  }

  get #isr(): number {
    return this.#isrCell[0]!
  }
  set #isr(bits: number) {
    this.#isrCell[0] = bits
  }

  // --- PciFunction

  connectIrq(irq: PciIrq | undefined): void {
    this.#irq = irq
    this.#level = false
    this.#updateLevel()
  }

  reset(): void {
    this.#common.reset()
    this.#config.reset()
    this.controlChanged()
  }

  readConfig(offset: number, out: Uint8Array): void {
    this.#config.read(offset, out)
  }

  writeConfig(offset: number, data: Uint8Array): void {
    this.#config.write(offset, data)
  }

  readBar(bar: number, offset: number, out: Uint8Array): void {
    out.fill(0)
    if (bar !== this.layout.bar) return
    const { common, isr, device } = this.layout
    if (offset < common.offset + common.len) this.#common.read(offset - common.offset, out)
    else if (offset === isr.offset) out[0] = this.#readIsr()
    else if (offset >= device.offset && offset < device.offset + device.len)
      this.#device.readConfig(offset - device.offset, out)
  }

  writeBar(bar: number, offset: number, data: Uint8Array): void {
    if (bar !== this.layout.bar) return
    const { common, device, notify, notifyMultiplier } = this.layout
    // The slot says which queue it is; the value written says the same (§4.1.5.2), or is a lie.
    if (offset >= notify.offset) this.#device.notify(((offset - notify.offset) / notifyMultiplier) >>> 0)
    else if (offset < common.offset + common.len) this.#common.write(offset - common.offset, data)
    else if (offset >= device.offset && offset < device.offset + device.len)
      this.#device.writeConfig(offset - device.offset, data)
  }

  // --- DeviceHost

  interruptQueue(queue: number): void {
    if (this.#config.msixEnabled) this.#fire(this.#common.vectorOf(queue))
    else this.#raise(VIRTIO_PCI_ISR_QUEUE)
  }

  configChanged(): void {
    this.#common.changed()
    if (!this.#common.driverOk) return
    // §4.1.4.5.1: the bit is set with MSI-X too.
    if (this.#config.msixEnabled) {
      this.#isr |= VIRTIO_PCI_ISR_CONFIG
      this.#fire(this.#common.configVector)
    } else this.#raise(VIRTIO_PCI_ISR_CONFIG)
  }

  needsReset(): void {
    if (this.#common.needsReset()) this.configChanged()
  }

  // --- ConfigSpaceOwner

  controlChanged(): void {
    this.#device.setBusMaster(this.#config.busMaster)
    this.#updateLevel()
  }

  #fire(vector: number): void {
    if (vector !== VIRTIO_MSI_NO_VECTOR) this.#irq?.msix(vector)
  }

  #raise(bit: number): void {
    this.#isr |= bit
    this.#updateLevel()
  }

  /** Reading takes all bits and lets the line go (§4.1.4.5). */
  #readIsr(): number {
    const isr = this.#isr
    this.#clearIsr()
    return isr
  }

  #clearIsr(): void {
    this.#isr = 0
    this.#updateLevel()
  }

  #updateLevel(): void {
    const pending = this.#isr !== 0 && !this.#config.msixEnabled
    this.#config.setInterruptStatus(pending)
    const level = pending && !this.#config.intxDisabled
    if (level === this.#level) return
    this.#level = level
    this.#irq?.intx(level)
  }
}
