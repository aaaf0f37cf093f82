/**
 * The ioctls of VFIO, type 1 (linux/vfio.h), as calls. Each throws VmchannelError with `errno`. Called by
 * driver/attach/vfio.
 */

import { check, declare } from './libc.ts'

const ioctlPointer = declare('int ioctl(int fd, unsigned long request, void *argument)')
const ioctlNumber = declare('int ioctl(int fd, unsigned long request, int64_t argument)')

const request = (nr: number): number => 0x3b64 + nr
const SET_IOMMU = request(2)
const GROUP_GET_STATUS = request(3)
const GROUP_SET_CONTAINER = request(4)
const GROUP_GET_DEVICE_FD = request(6)
const DEVICE_GET_REGION_INFO = request(8)
const DEVICE_SET_IRQS = request(10)
const IOMMU_MAP_DMA = request(13)

const TYPE1V2_IOMMU = 3
const GROUP_FLAGS_VIABLE = 1
const REGION_INFO_FLAG_MMAP = 4
const DMA_MAP_READ_WRITE = 3
const IRQ_DATA_NONE_TRIGGER = 0x21
const IRQ_DATA_EVENTFD_TRIGGER = 0x24
const MSIX_IRQ_INDEX = 2

export interface VfioRegion {
  readonly size: number
  readonly offset: number
  readonly mappable: boolean
}

/** Whether all functions of the group are with VFIO, or with nobody. */
export function groupViable(group: number): boolean {
  const status = words(8)
  status.setUint32(0, 8, true)
  call(group, GROUP_GET_STATUS, status, 'VFIO_GROUP_GET_STATUS')
  return (status.getUint32(4, true) & GROUP_FLAGS_VIABLE) !== 0
}

export function setContainer(group: number, container: number): void {
  const fd = words(4)
  fd.setInt32(0, container, true)
  call(group, GROUP_SET_CONTAINER, fd, 'VFIO_GROUP_SET_CONTAINER')
}

export function setIommu(container: number): void {
  check(ioctlNumber(container, SET_IOMMU, TYPE1V2_IOMMU), 'ioctl', 'VFIO_SET_IOMMU', 'ERR_VMCHANNEL_PLATFORM')
}

export function deviceFd(group: number, bdf: string): number {
  const name = new TextEncoder().encode(`${bdf}\0`)
  return check(
    ioctlPointer(group, GROUP_GET_DEVICE_FD, name),
    'ioctl',
    'VFIO_GROUP_GET_DEVICE_FD',
    'ERR_VMCHANNEL_PLATFORM',
  )
}

export function regionInfo(device: number, index: number): VfioRegion {
  const info = words(32)
  info.setUint32(0, 32, true)
  info.setUint32(8, index, true)
  call(device, DEVICE_GET_REGION_INFO, info, 'VFIO_DEVICE_GET_REGION_INFO')
  return {
    mappable: (info.getUint32(4, true) & REGION_INFO_FLAG_MMAP) !== 0,
    size: Number(info.getBigUint64(16, true)),
    offset: Number(info.getBigUint64(24, true)),
  }
}

/** Lets the device reach memory of this process, at an address of our choice. */
export function mapDma(container: number, address: number, iova: number, size: number): void {
  const map = words(32)
  map.setUint32(0, 32, true)
  map.setUint32(4, DMA_MAP_READ_WRITE, true)
  map.setBigUint64(8, BigInt(address), true)
  map.setBigUint64(16, BigInt(iova), true)
  map.setBigUint64(24, BigInt(size), true)
  call(container, IOMMU_MAP_DMA, map, 'VFIO_IOMMU_MAP_DMA')
}

/** Turns MSI-X on, each vector into an eventfd; an empty list turns it off. */
export function setMsixEventfds(device: number, eventfds: readonly number[]): void {
  const irqs = words(20 + 4 * eventfds.length)
  irqs.setUint32(0, irqs.byteLength, true)
  irqs.setUint32(4, eventfds.length === 0 ? IRQ_DATA_NONE_TRIGGER : IRQ_DATA_EVENTFD_TRIGGER, true)
  irqs.setUint32(8, MSIX_IRQ_INDEX, true)
  irqs.setUint32(16, eventfds.length, true)
  for (const [i, fd] of eventfds.entries()) irqs.setInt32(20 + 4 * i, fd, true)
  call(device, DEVICE_SET_IRQS, irqs, 'VFIO_DEVICE_SET_IRQS')
}

function words(len: number): DataView {
  return new DataView(new ArrayBuffer(len))
}

function call(fd: number, nr: number, argument: DataView, name: string): void {
  const bytes = new Uint8Array(argument.buffer)
  check(ioctlPointer(fd, nr, bytes), 'ioctl', name, 'ERR_VMCHANNEL_PLATFORM')
}
