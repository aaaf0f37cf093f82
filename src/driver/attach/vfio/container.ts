/**
 * A PCI function under vfio-pci, opened: its group, the container with the IOMMU's table, regions. Errors say what a
 * guest lacks. Called by attach.ts.
 */

import { closeSync, constants, existsSync, openSync, readdirSync, readlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { VmchannelError } from '../../../errors.ts'
import { anonymousPages, mapRegion, type DeviceRegion } from '../../../ffi/device-region.ts'
import { readAt, writeAt } from '../../../ffi/uio.ts'
import {
  deviceFd,
  groupViable,
  mapDma,
  regionInfo,
  setContainer,
  setIommu,
  type VfioRegion,
} from '../../../ffi/vfio.ts'
import type { Region } from '../../../mem/guest-memory.ts'
import type { PciAccess } from '../../pci-registers.ts'
import { MappedBars } from '../mapped-bars.ts'
import type { PciFunction } from '../pci-sysfs.ts'

const BARS = 6
const CONFIG_REGION = 7
/** Where the device sees our memory: above what IOMMUs keep for interrupts (0xfee00000). */
const IOVA_BASE = 2 ** 32
const NODE = '/dev/vfio/vfio'

/** The group's number; VmchannelError where the function is behind no IOMMU. */
export function iommuGroup(pci: PciFunction): string {
  const path = join(pci.path, 'iommu_group')
  if (existsSync(path)) return basename(readlinkSync(path))
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${pci.bdf} is behind no IOMMU: VFIO cannot drive it`, {
    hint: 'Give the machine one (QEMU: -device intel-iommu,intremap=on, and iommu_platform=on for the device), or use UIO.',
  })
}

export class VfioFunction implements PciAccess {
  readonly barSizes: readonly number[]
  readonly device: number
  readonly #container: number
  readonly #group: number
  readonly #config: VfioRegion
  readonly #regions: readonly VfioRegion[]
  readonly #bars: MappedBars
  readonly #pages: DeviceRegion[] = []
  #iova = IOVA_BASE

  /** The function is bound to vfio-pci. Throws VmchannelError. */
  constructor(pci: PciFunction) {
    const group = iommuGroup(pci)
    this.#container = openNode(NODE)
    try {
      this.#group = openNode(`/dev/vfio/${group}`)
    } catch (error) {
      closeSync(this.#container)
      throw error
    }
    try {
      if (!groupViable(this.#group)) throw notViable(pci, group)
      setContainer(this.#group, this.#container)
      useIommu(this.#container)
      this.device = deviceFd(this.#group, pci.bdf)
    } catch (error) {
      closeSync(this.#group)
      closeSync(this.#container)
      throw error
    }
    this.#config = regionInfo(this.device, CONFIG_REGION)
    this.#regions = Array.from({ length: BARS }, (_, index) => regionInfo(this.device, index))
    // BARs of I/O ports cannot be mapped, and hold nothing that we use.
    this.barSizes = this.#regions.map(({ size, mappable }) => (mappable ? size : 0))
    this.#bars = new MappedBars((index) => {
      const { offset, size } = this.#regions[index]!
      return mapRegion(this.device, offset, size, `${pci.bdf}: BAR ${index}`)
    })
  }

  readConfig(offset: number, out: Uint8Array): void {
    if (readAt(this.device, out, this.#config.offset + offset) !== out.length) out.fill(0xff)
  }

  writeConfig(offset: number, data: Uint8Array): void {
    writeAt(this.device, data, this.#config.offset + offset)
  }

  readBar(bar: number, offset: number, out: Uint8Array): void {
    this.#bars.read(bar, offset, out)
  }

  writeBar(bar: number, offset: number, data: Uint8Array): void {
    this.#bars.write(bar, offset, data)
  }

  /** Memory that the device reaches; it stays where it is until `close`. */
  grow(len: number): Region {
    const pages = anonymousPages(len)
    const base = this.#iova
    try {
      mapDma(this.#container, pages.address, base, len)
    } catch (error) {
      pages.drop()
      throw error
    }
    this.#pages.push(pages)
    this.#iova += len
    return { base, size: len, bytes: pages.bytes, address: pages.address, writable: true }
  }

  /** The kernel resets the function and forgets the table with the last of these. */
  close(): void {
    this.#bars.drop()
    closeSync(this.device)
    closeSync(this.#group)
    closeSync(this.#container)
    for (const pages of this.#pages.splice(0)) pages.drop()
  }
}

function openNode(path: string): number {
  try {
    return openSync(path, constants.O_RDWR)
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code ?? 'unknown error'
    const busy = errno === 'EBUSY'
    throw new VmchannelError(
      busy ? 'ERR_VMCHANNEL_IN_USE' : 'ERR_VMCHANNEL_PLATFORM',
      `${path} cannot be opened: ${errno}`,
      {
        errno,
        cause,
        hint: busy
          ? 'Another program has the group.'
          : 'Load the modules: modprobe vfio-pci, modprobe vfio_iommu_type1.',
      },
    )
  }
}

function useIommu(container: number): void {
  try {
    setIommu(container)
  } catch (cause) {
    const { errno } = cause as VmchannelError
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `VFIO cannot use the IOMMU: ${errno}`, {
      cause,
      hint:
        errno === 'EPERM'
          ? 'It does not remap interrupts (QEMU: -device intel-iommu,intremap=on); dmesg says more.'
          : 'Load the module: modprobe vfio_iommu_type1.',
    })
  }
}

function notViable(pci: PciFunction, group: string): VmchannelError {
  const others = readdirSync(`/sys/kernel/iommu_groups/${group}/devices`).filter((bdf) => bdf !== pci.bdf)
  return new VmchannelError(
    'ERR_VMCHANNEL_IN_USE',
    `${pci.bdf} shares IOMMU group ${group} with ${others.join(', ')}`,
    {
      hint: 'All of a group are driven by VFIO, or none: put the device behind a root port of its own.',
    },
  )
}
