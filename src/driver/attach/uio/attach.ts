/**
 * The driver half on a PCI function under uio_pci_generic: registers mapped, memory in huge pages at physical
 * addresses, interrupts by the pin (INTx). Called by the guest's program.
 *
 * The kernel masks the pin with each interrupt (bit INTX_DISABLE of the command register) and counts; we read the
 * count, serve the device, and clear the bit. With the last close of /dev/uioN it takes bus mastering away.
 */

import { closeSync, constants, existsSync, openSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { VmchannelError } from '../../../errors.ts'
import { Watch } from '../../../ffi/poll.ts'
import { lockFile, takeUioInterrupt } from '../../../ffi/uio.ts'
import { DmaPool } from '../../../mem/dma-pool.ts'
import { VIRTIO_F_ACCESS_PLATFORM } from '../../../spec/features.ts'
import { PCI_COMMAND, PCI_COMMAND_INTX_DISABLE } from '../../../spec/pci.ts'
import { findMsix, setMsix } from '../../capabilities.ts'
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
import { SysfsAccess } from './access.ts'
import { openHugePages } from './hugepages.ts'

export const UIO_DRIVER = 'uio_pci_generic'

/** Binds the function to UIO, resets the device and makes it ready for a driver. Throws VmchannelError. */
export function attachUio(pci: PciFunction, options: AttachOptions = {}): AttachedDevice {
  const access = new SysfsAccess(pci)
  // Last of all the lock: until then nobody else may touch the function.
  const undo: (() => void)[] = [() => access.close()]
  try {
    lockFunction(access.configFd, pci)
    undo.push(() => giveBack(pci))
    bindDriver(pci, UIO_DRIVER)
    return open(pci, access, undo, options)
  } catch (error) {
    undoAll(undo)
    throw attachError(pci.bdf, error)
  }
}

/** Takes the function for this process; `fd` is open on its configuration space, and keeps it. */
export function lockFunction(fd: number, { bdf }: PciFunction): void {
  if (lockFile(fd)) return
  throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${bdf} is driven by another vmchannel already`, {
    hint: 'End that process first, or name another device.',
  })
}

function open(pci: PciFunction, access: SysfsAccess, undo: (() => void)[], options: AttachOptions): AttachedDevice {
  const uio = readdirSync(join(pci.path, 'uio'))[0]!
  const node = `/dev/${uio}`
  if (!existsSync(node))
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `the kernel made ${uio}, but there is no ${node}`, {
      hint: 'Mount devtmpfs at /dev, or make the node by hand.',
    })
  // Open before bus mastering goes on: from here on the kernel ends it when we die.
  const fd = openSync(node, constants.O_RDWR | constants.O_NONBLOCK)
  undo.push(() => closeSync(fd))
  const registers = new PciRegisters(access)
  const msix = findMsix(registers)
  if (msix) setMsix(registers, msix, false)
  const transport = new PciTransport(access, { vectors: 0 })
  if (lookAtFeatures(transport) & VIRTIO_F_ACCESS_PLATFORM)
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${pci.bdf} is behind an IOMMU (ACCESS_PLATFORM is offered)`, {
      hint: 'UIO gives it physical addresses, which mean nothing there. Use VFIO: --driver vfio.',
    })
  const memory = openHugePages(pci.bdf)
  undo.push(() => {
    // Otherwise its pages stay in the file until the next start, or a reboot.
    if (letGo(transport)) memory.close()
  })

  const armed = registers.config16(PCI_COMMAND) & ~PCI_COMMAND_INTX_DISABLE
  let interrupts = 0
  let gone = false
  const serve = (): void => {
    const taken = takeUioInterrupt(fd)
    if (taken === undefined) {
      if (gone) return
      gone = true
      watch.close()
      options.onGone?.()
      return
    }
    if (taken) interrupts++
    transport.intx()
    if (!gone) registers.setConfig16(PCI_COMMAND, armed)
    options.onServed?.()
  }
  const watch = new Watch(fd, serve)
  watch.want(true, false)
  const wakers: Waker[] = [{ fd, serve }]
  undo.push(() => {
    watch.close()
    wakers.length = 0
  })
  registers.setConfig16(PCI_COMMAND, armed)
  return {
    transport,
    pool: new DmaPool((len) => memory.grow(len), options),
    features: 0n,
    label: `${pci.bdf} (${uio}, INTx)`,
    wakers,
    get interrupts() {
      return interrupts
    },
    detach() {
      gone = true
      transport.connect(undefined)
      if (existsSync(pci.path)) registers.setConfig16(PCI_COMMAND, armed | PCI_COMMAND_INTX_DISABLE)
      const error = undoAll(undo)
      return { driver: driverOf(pci), error }
    },
  }
}
