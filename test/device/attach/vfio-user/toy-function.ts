/**
 * A PCI function for tests: one memory BAR of registers that remember, MSI-X, INTx; writes down what it was asked.
 */

import type { PciFunction, PciIrq } from '../../../../src/device/pci/function.ts'

export const TOY_VENDOR = 0x1af4
export const TOY_DEVICE = 0x10f0

export class ToyFunction implements PciFunction {
  readonly barSizes: number[]
  readonly configSize = 256
  readonly vectors: number
  readonly intx = true
  readonly config = new Uint8Array(256)
  readonly bar: Uint8Array
  readonly log: string[] = []
  irq: PciIrq | undefined
  resets = 0
  writes = 0
  /** Thrown at the next BAR access. */
  failure: Error | undefined
  onWrite: ((offset: number) => void) | undefined

  constructor(barSize = 0x4000, vectors = 4) {
    this.barSizes = [barSize, 0x1000, 0, 0, 0, 0]
    this.bar = new Uint8Array(barSize)
    this.vectors = vectors
    const view = new DataView(this.config.buffer)
    view.setUint16(0, TOY_VENDOR, true)
    view.setUint16(2, TOY_DEVICE, true)
    view.setUint16(6, 0x10, true) // capabilities
    this.config[8] = 1
    this.config[11] = 0xff // class: unassigned
    this.config[0x34] = 0x40
    this.config[0x3d] = 1 // INTA
    this.config[0x40] = 0x11 // MSI-X
    view.setUint16(0x42, this.vectors - 1, true)
    view.setUint32(0x44, 1, true) // table in BAR 1 at 0
    view.setUint32(0x48, 0x800 | 1, true) // pending bits in BAR 1 at 0x800
  }

  readConfig(offset: number, out: Uint8Array): void {
    out.set(this.config.subarray(offset, offset + out.length))
  }

  writeConfig(offset: number, data: Uint8Array): void {
    if (offset === 4) this.config.set(data.subarray(0, 2), 4) // COMMAND
  }

  readBar(bar: number, offset: number, out: Uint8Array): void {
    if (this.failure) throw this.failure
    if (bar === 0) out.set(this.bar.subarray(offset, offset + out.length))
  }

  writeBar(bar: number, offset: number, data: Uint8Array): void {
    if (this.failure) throw this.failure
    this.writes++
    if (bar === 0) this.bar.set(data, offset)
    this.onWrite?.(offset)
  }

  reset(): void {
    this.resets++
    this.bar.fill(0)
    this.log.push('reset')
  }

  connectIrq(irq: PciIrq | undefined): void {
    this.irq = irq
    this.log.push(irq ? 'irq' : 'no irq')
  }
}
