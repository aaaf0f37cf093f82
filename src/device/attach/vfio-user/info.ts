/**
 * What a VMM asks about the device: GET_INFO, GET_REGION_INFO, GET_IRQ_INFO. Called by the session.
 */

import type { PciFunction } from '../../pci/function.ts'
import {
  DEVICE_FLAG,
  DEVICE_INFO,
  ERRNO,
  HEADER_SIZE,
  IRQ,
  IRQ_COUNT,
  IRQ_FLAG,
  IRQ_INFO,
  REGION_CONFIG,
  REGION_COUNT,
  REGION_FLAG,
  REGION_INFO,
  setU64,
  type Handler,
} from './wire.ts'

/** Bytes behind each region; 0 where there is none. */
export function regionSizes(pci: PciFunction): number[] {
  const sizes = new Array<number>(REGION_COUNT).fill(0)
  for (let bar = 0; bar < 6; bar++) sizes[bar] = pci.barSizes[bar] ?? 0
  sizes[REGION_CONFIG] = pci.configSize
  return sizes
}

export const deviceInfo: Handler = (message, { view }) => {
  if (message.len < DEVICE_INFO.size || message.view.getUint32(message.at, true) < DEVICE_INFO.size)
    return -ERRNO.EINVAL
  view.setUint32(HEADER_SIZE + DEVICE_INFO.argsz, DEVICE_INFO.size, true)
  view.setUint32(HEADER_SIZE + DEVICE_INFO.flags, DEVICE_FLAG.RESET | DEVICE_FLAG.PCI, true)
  view.setUint32(HEADER_SIZE + DEVICE_INFO.regions, REGION_COUNT, true)
  view.setUint32(HEADER_SIZE + DEVICE_INFO.irqs, IRQ_COUNT, true)
  return DEVICE_INFO.size
}

/**
 * No region can be mapped: one that can would make QEMU wait for every register write of the device, and a store into
 * it would wake nobody here.
 */
export function regionInfo(sizes: readonly number[]): Handler {
  return (message, { view }) => {
    if (message.len < REGION_INFO.size || message.view.getUint32(message.at, true) < REGION_INFO.size)
      return -ERRNO.EINVAL
    const index = message.view.getUint32(message.at + REGION_INFO.index, true)
    const size = sizes[index]
    if (size === undefined) return -ERRNO.EINVAL
    view.setUint32(HEADER_SIZE + REGION_INFO.argsz, REGION_INFO.size, true)
    view.setUint32(HEADER_SIZE + REGION_INFO.flags, size > 0 ? REGION_FLAG.READ | REGION_FLAG.WRITE : 0, true)
    view.setUint32(HEADER_SIZE + REGION_INFO.index, index, true)
    view.setUint32(HEADER_SIZE + REGION_INFO.capOffset, 0, true)
    setU64(view, HEADER_SIZE + REGION_INFO.len, size)
    setU64(view, HEADER_SIZE + REGION_INFO.offset, 0)
    return REGION_INFO.size
  }
}

/**
 * The error and request interrupts do not exist: an error reply is what keeps QEMU silent about the first (a count of 0
 * makes it complain), and it never asks for the second.
 */
export function irqInfo(pci: PciFunction): Handler {
  const known = new Map<number, readonly [flags: number, count: number]>([
    [IRQ.INTX, [IRQ_FLAG.EVENTFD | IRQ_FLAG.MASKABLE | IRQ_FLAG.AUTOMASKED, pci.intx ? 1 : 0]],
    [IRQ.MSI, [IRQ_FLAG.EVENTFD, 0]],
    [IRQ.MSIX, [IRQ_FLAG.EVENTFD, pci.vectors]],
  ])
  return (message, { view }) => {
    if (message.len < IRQ_INFO.size || message.view.getUint32(message.at, true) < IRQ_INFO.size) return -ERRNO.EINVAL
    const index = message.view.getUint32(message.at + IRQ_INFO.index, true)
    const info = known.get(index)
    if (!info) return -ERRNO.EINVAL
    view.setUint32(HEADER_SIZE + IRQ_INFO.argsz, IRQ_INFO.size, true)
    view.setUint32(HEADER_SIZE + IRQ_INFO.flags, info[0], true)
    view.setUint32(HEADER_SIZE + IRQ_INFO.index, index, true)
    view.setUint32(HEADER_SIZE + IRQ_INFO.count, info[1], true)
    return IRQ_INFO.size
  }
}
