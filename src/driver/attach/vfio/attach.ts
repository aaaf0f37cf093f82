/**
 * The driver half on a PCI function behind an IOMMU, under vfio-pci: registers mapped, memory in ordinary pages at
 * addresses of our choice, interrupts by MSI-X through eventfds. Called by the guest's program.
 */

import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { VmchannelError } from '../../../errors.ts'
import { createEventfd, drainEventfd } from '../../../ffi/eventfd.ts'
import { Watch } from '../../../ffi/poll.ts'
import { setMsixEventfds } from '../../../ffi/vfio.ts'
import { DmaPool } from '../../../mem/dma-pool.ts'
import { VIRTIO_F_ACCESS_PLATFORM } from '../../../spec/features.ts'
import { findMsix } from '../../capabilities.ts'
import { PciRegisters } from '../../pci-registers.ts'
import { PciTransport } from '../../pci.ts'
import {
  attachError,
  letGo,
  lookAtFeatures,
  undoAll,
  type AttachedDevice,
  type AttachOptions,
  type Waker,
} from '../attached.ts'
import { bindDriver, driverOf, giveBack, type PciFunction } from '../pci-sysfs.ts'
import { lockFunction } from '../uio/attach.ts'
import { iommuGroup, VfioFunction } from './container.ts'

export const VFIO_DRIVER = 'vfio-pci'

/** One for configuration changes, the others for queues in turn. */
const VECTORS_MAX = 8

/** Binds the function to VFIO, resets the device and makes it ready for a driver. Throws VmchannelError. */
export function attachVfio(pci: PciFunction, options: AttachOptions = {}): AttachedDevice {
  const lock = openSync(join(pci.path, 'config'), constants.O_RDONLY)
  const undo: (() => void)[] = [() => closeSync(lock)]
  try {
    lockFunction(lock, pci)
    iommuGroup(pci)
    undo.push(() => giveBack(pci))
    bindDriver(pci, VFIO_DRIVER)
    return open(pci, undo, options)
  } catch (error) {
    undoAll(undo)
    throw attachError(pci.bdf, error)
  }
}

function open(pci: PciFunction, undo: (() => void)[], options: AttachOptions): AttachedDevice {
  const vfio = new VfioFunction(pci)
  undo.push(() => vfio.close())
  const vectors = Math.min(findMsix(new PciRegisters(vfio))?.vectors ?? 0, VECTORS_MAX)
  if (vectors === 0)
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${pci.bdf} has no MSI-X`, {
      hint: 'Give the device vectors (QEMU: vectors=4), or use UIO without an IOMMU.',
    })
  const transport = new PciTransport(vfio, { vectors })
  // Without it the device takes our addresses for physical ones, and writes into memory that is somebody else's.
  if (!(lookAtFeatures(transport) & VIRTIO_F_ACCESS_PLATFORM))
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${pci.bdf} goes around the IOMMU (no ACCESS_PLATFORM)`, {
      hint: 'Give the device iommu_platform=on in QEMU, or use UIO: --driver uio.',
    })
  undo.push(() => void letGo(transport))

  let interrupts = 0
  const wakers: Waker[] = Array.from({ length: vectors }, (_, vector) => {
    const fd = createEventfd()
    const serve = (): void => {
      if (drainEventfd(fd) === 0) return
      interrupts++
      transport.interrupt(vector)
      options.onServed?.()
    }
    return { fd, serve }
  })
  const watches = wakers.map((waker) => new Watch(waker.fd, () => waker.serve()))
  for (const watch of watches) watch.want(true, false)
  undo.push(() => {
    wakers.length = 0
    for (const watch of watches) {
      watch.close()
      closeSync(watch.fd)
    }
  })
  setMsixEventfds(
    vfio.device,
    watches.map(({ fd }) => fd),
  )
  undo.push(() => setMsixEventfds(vfio.device, []))
  return {
    transport,
    pool: new DmaPool((len) => vfio.grow(len), options),
    features: VIRTIO_F_ACCESS_PLATFORM,
    label: `${pci.bdf} (IOMMU group ${iommuGroup(pci)}, MSI-X)`,
    wakers,
    get interrupts() {
      return interrupts
    },
    detach() {
      transport.connect(undefined)
      const error = undoAll(undo)
      return { driver: driverOf(pci), error }
    },
  }
}
