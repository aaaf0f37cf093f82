/**
 * A PCI function's registers from user space: configuration space through sysfs, memory BARs mapped. A register is
 * read and written in its own width, or the device sees accesses that mean something else (a DataView reads bytes).
 */

import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { VmchannelError } from '../../../errors.ts'
import { SharedMapping } from '../../../ffi/mmap.ts'
import { readAt, writeAt } from '../../../ffi/uio.ts'
import type { PciAccess } from '../../pci-registers.ts'
import { resources, type PciFunction } from '../pci-sysfs.ts'

interface Bar {
  readonly mapping: SharedMapping
  readonly u8: Uint8Array
  readonly u16: Uint16Array
  readonly u32: Uint32Array
}

const PAGE = 4096

export class SysfsAccess implements PciAccess {
  /** BARs of I/O ports count as none: nothing we use lies there. */
  readonly barSizes: readonly number[]
  /** Open on configuration space for as long as the function is ours. */
  readonly configFd: number
  readonly #pci: PciFunction
  readonly #bars: (Bar | undefined)[] = []
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
    const { u8, u16, u32 } = this.#bar(bar)
    if (out.length === 4 && offset % 4 === 0) spread(u32[offset / 4]!, out)
    else if (out.length === 2 && offset % 2 === 0) spread(u16[offset / 2]!, out)
    else for (let i = 0; i < out.length; i++) out[i] = u8[offset + i]!
  }

  writeBar(bar: number, offset: number, data: Uint8Array): void {
    const { u8, u16, u32 } = this.#bar(bar)
    if (data.length === 4 && offset % 4 === 0) u32[offset / 4] = gather(data)
    else if (data.length === 2 && offset % 2 === 0) u16[offset / 2] = gather(data)
    else for (let i = 0; i < data.length; i++) u8[offset + i] = data[i]!
  }

  /** Lets go of registers; what still calls reads zeros. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const bar of this.#bars) bar?.mapping.drop()
    closeSync(this.configFd)
  }

  #bar(index: number): Bar {
    return (this.#bars[index] ??= this.#map(index))
  }

  #map(index: number): Bar {
    const path = join(this.#pci.path, `resource${index}`)
    let fd: number
    try {
      fd = openSync(path, constants.O_RDWR)
    } catch (cause) {
      throw this.#refused(index, cause)
    }
    try {
      const size = Math.max(PAGE, this.barSizes[index] ?? 0)
      const mapping = new SharedMapping(fd, size, true)
      const { bytes } = mapping.pieces(0, size)[0]!
      const { buffer, byteOffset } = bytes
      return {
        mapping,
        u8: bytes,
        u16: new Uint16Array(buffer, byteOffset, size / 2),
        u32: new Uint32Array(buffer, byteOffset, size / 4),
      }
    } catch (cause) {
      throw this.#refused(index, cause)
    } finally {
      closeSync(fd)
    }
  }

  #refused(index: number, cause: unknown): VmchannelError {
    const { errno, code } = cause as { errno?: string; code?: string }
    const why = typeof errno === 'string' ? errno : code
    return new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${this.#pci.bdf}: BAR ${index} cannot be mapped: ${why}`, {
      cause,
      hint:
        why === 'EPERM'
          ? 'A kernel in lockdown (Secure Boot) does not let programs drive devices: turn Secure Boot off, or use VFIO.'
          : 'Another driver may still have the region; see /proc/iomem.',
    })
  }
}

function spread(value: number, out: Uint8Array): void {
  for (let i = 0; i < out.length; i++) out[i] = value >>> (8 * i)
}

function gather(data: Uint8Array): number {
  let value = 0
  for (let i = data.length - 1; i >= 0; i--) value = value * 256 + data[i]!
  return value
}
