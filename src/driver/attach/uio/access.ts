/** A PCI function's registers through sysfs: configuration space, and BARs mapped from their files. */

import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { VmchannelError } from '../../../errors.ts'
import { mapRegion, type DeviceRegion } from '../../../ffi/device-region.ts'
import { readAt, writeAt } from '../../../ffi/uio.ts'
import type { PciAccess } from '../../pci-registers.ts'
import { MappedBars } from '../mapped-bars.ts'
import { resources, type PciFunction } from '../pci-sysfs.ts'

const PAGE = 4096

export class SysfsAccess implements PciAccess {
  /** BARs of I/O ports count as none: nothing we use lies there. */
  readonly barSizes: readonly number[]
  /** Open on configuration space for as long as the function is ours. */
  readonly configFd: number
  readonly #pci: PciFunction
  readonly #bars = new MappedBars((index) => this.#map(index))
  #closed = false

  constructor(pci: PciFunction) {
    this.#pci = pci
    this.barSizes = resources(pci).map(({ size, io }) => (io ? 0 : size))
    this.configFd = openSync(join(pci.path, 'config'), constants.O_RDWR)
  }

  readConfig(offset: number, out: Uint8Array): void {
    // A function that is gone reads as all ones, here as in its BARs.
    if (readAt(this.configFd, out, offset) !== out.length) out.fill(0xff)
  }

  writeConfig(offset: number, data: Uint8Array): void {
    if (writeAt(this.configFd, data, offset) === data.length) return
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${this.#pci.bdf}: configuration space cannot be written`, {
      hint: 'The device is gone, or the kernel is in lockdown (Secure Boot).',
    })
  }

  readBar(bar: number, offset: number, out: Uint8Array): void {
    this.#bars.read(bar, offset, out)
  }

  writeBar(bar: number, offset: number, data: Uint8Array): void {
    this.#bars.write(bar, offset, data)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#bars.drop()
    closeSync(this.configFd)
  }

  #map(index: number): DeviceRegion {
    const what = `${this.#pci.bdf}: BAR ${index}`
    let fd: number | undefined
    try {
      fd = openSync(join(this.#pci.path, `resource${index}`), constants.O_RDWR)
      return mapRegion(fd, 0, Math.max(PAGE, this.barSizes[index] ?? 0), what)
    } catch (cause) {
      const { errno, code } = cause as { errno?: string | number; code?: string }
      const why = typeof errno === 'string' ? errno : code
      throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${what} cannot be mapped: ${why}`, {
        cause,
        hint:
          why === 'EPERM'
            ? 'A kernel in lockdown (Secure Boot) does not let programs drive devices: turn it off, or use VFIO.'
            : 'Another driver may still have the region; see /proc/iomem.',
      })
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }
}
