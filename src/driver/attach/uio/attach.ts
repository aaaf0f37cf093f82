/**
 * The driver half on a PCI function under uio_pci_generic: registers mapped, memory in huge pages at physical
 * addresses, interrupts by the pin (INTx). Called by the guest's program and by the library.
 *
 * The kernel masks the pin with each interrupt (bit INTX_DISABLE of the command register) and counts; we read the
 * count, serve the device, and clear the bit. With the last close of /dev/uioN it takes bus mastering away.
 */

import { closeSync, constants, existsSync, openSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { PeerFault, VmchannelError } from '../../../errors.ts'
import { Watch } from '../../../ffi/poll.ts'
import { lockFile, takeUioInterrupt } from '../../../ffi/uio.ts'
import { DmaPool, type DmaPoolOptions } from '../../../mem/dma-pool.ts'
import { VIRTIO_F_ACCESS_PLATFORM } from '../../../spec/features.ts'
import { PCI_COMMAND, PCI_COMMAND_INTX_DISABLE } from '../../../spec/pci.ts'
import { VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER } from '../../../spec/status.ts'
import { findMsix, setMsix } from '../../capabilities.ts'
import { PciRegisters } from '../../pci-registers.ts'
import { PciTransport } from '../../pci.ts'
import { resetDevice } from '../../transport.ts'
import { bindDriver, driverOf, giveBack, type PciFunction } from '../pci-sysfs.ts'
import { SysfsAccess } from './access.ts'
import { openHugePages } from './hugepages.ts'

export const UIO_DRIVER = 'uio_pci_generic'

export interface UioOptions extends DmaPoolOptions {
  /** The function is gone: unplugged, or taken away from UIO. Called from the event loop, once. */
  onGone?: () => void
  /** An interrupt has been served; the pin is still masked. */
  onServed?: () => void
}

export interface UioDevice {
  readonly transport: PciTransport
  readonly pool: DmaPool
  /** What to show a person: "0000:00:03.0 (uio0, INTx)". */
  readonly label: string
  /** Interrupts taken. */
  readonly interrupts: number
  /** Resets the device, lets go of it and of its memory, gives it back; returns the kernel driver that has it now. */
  detach(): string | undefined
}

/** Binds the function to UIO, resets the device and makes it ready for a driver. Throws VmchannelError. */
export function attachUio(pci: PciFunction, options: UioOptions = {}): UioDevice {
  const before = driverOf(pci)
  const access = new SysfsAccess(pci)
  // Last of all the lock: until then nobody else may touch the function.
  const undo: (() => void)[] = [() => access.close()]
  try {
    if (!lockFile(access.configFd))
      throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${pci.bdf} is driven by another vmchannel already`, {
        hint: 'End that process first, or name another device.',
      })
    undo.push(() => giveBack(pci))
    bindDriver(pci, UIO_DRIVER)
    return open(pci, access, undo, options)
  } catch (error) {
    undoAll(undo)
    if (error instanceof PeerFault)
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${pci.bdf} cannot be driven: ${error.message}`, {
        cause: error,
        hint: `It is given back to ${before ?? 'nobody'}. A device with disable-modern=on has only the old interface, which is not supported.`,
      })
    throw error
  }
}

function open(pci: PciFunction, access: SysfsAccess, undo: (() => void)[], options: UioOptions): UioDevice {
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
  // A driver before us may have been killed: the device must have let go of its pages before they are anybody's.
  resetDevice(transport)
  transport.writeStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE)
  transport.writeStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
  if (transport.readDeviceFeatures() & VIRTIO_F_ACCESS_PLATFORM)
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${pci.bdf} is behind an IOMMU (ACCESS_PLATFORM is offered)`, {
      hint: 'UIO gives it physical addresses, which it would not take. Use VFIO (--driver vfio).',
    })
  resetDevice(transport)
  const memory = openHugePages(pci.bdf)
  undo.push(() => {
    if (letGo(transport)) memory.close()
  })
  const pool = new DmaPool((len) => memory.grow(len), options)

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
    options.onServed?.()
    if (!gone) registers.setConfig16(PCI_COMMAND, armed)
  }
  const watch = new Watch(fd, serve)
  watch.want(true, false)
  undo.push(() => watch.close())
  registers.setConfig16(PCI_COMMAND, armed)
  return {
    transport,
    pool,
    label: `${pci.bdf} (${uio}, INTx)`,
    get interrupts() {
      return interrupts
    },
    detach() {
      gone = true
      transport.connect(undefined)
      if (existsSync(pci.path)) registers.setConfig16(PCI_COMMAND, armed | PCI_COMMAND_INTX_DISABLE)
      undoAll(undo)
      return driverOf(pci)
    },
  }
}

/** Backwards, each step whatever became of the others. */
function undoAll(undo: (() => void)[]): void {
  for (const step of undo.splice(0).toReversed()) {
    try {
      step()
    } catch {
      // What is told is why this began.
    }
  }
}

/** Whether the device does not know our pages any more: it was reset, or is gone (all registers read as ones). */
function letGo(transport: PciTransport): boolean {
  try {
    if (transport.readStatus() === 0xff) return true
    resetDevice(transport)
    return true
  } catch {
    // Its pages stay in the file until the next start, or a reboot.
    return false
  }
}
