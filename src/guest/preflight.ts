/** What has to be in place before a device is taken over: looked at first, so that nothing is taken for nothing. */

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import {
  driverLoaded,
  driverOf,
  findConsoleFunctions,
  isConsole,
  pciFunction,
  type PciFunction,
} from '../driver/attach/pci-sysfs.ts'
import { VmchannelError } from '../errors.ts'
import { PCI_CAP_ID_VNDR, PCI_CAPABILITY_LIST, VIRTIO_PCI_CAP_COMMON_CFG } from '../spec/pci.ts'

/** Drivers that a device may be with when we come. */
const OURS_TO_TAKE = ['virtio-pci', 'uio_pci_generic', 'vfio-pci']

export function checkRoot(): void {
  if (process.platform !== 'linux')
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `this runs inside a Linux guest, not on ${process.platform}`)
  if (process.geteuid?.() === 0) return
  throw new VmchannelError(
    'ERR_VMCHANNEL_PLATFORM',
    `driving a device takes root; this is user ${process.geteuid?.()}`,
    {
      hint: 'Start it with sudo, or as a service of the system.',
    },
  )
}

/** Loads a kernel module where `there` says that it is missing; VmchannelError names it and its package. */
export function needModule(name: string, there: () => boolean): void {
  if (there()) return
  const tried = spawnSync('modprobe', [name], { stdio: 'ignore' })
  if (there()) return
  const kernel = release()
  const why = tried.error ? 'modprobe cannot be started' : `modprobe ${name} ended with ${tried.status}`
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `kernel module ${name} is not loaded: ${why}`, {
    hint:
      `This kernel is ${kernel}. Debian has the module in linux-image-${kernel}, Ubuntu in linux-modules-extra-${kernel}, ` +
      `Fedora in kernel-modules.`,
  })
}

export function checkModules(driver: string): void {
  needModule(driver.replaceAll('-', '_'), () => driverLoaded(driver))
  if (driver === 'vfio-pci') needModule('vfio_iommu_type1', () => existsSync('/sys/module/vfio_iommu_type1'))
  needCuse()
}

export function needCuse(): void {
  needModule('cuse', () => existsSync('/dev/cuse'))
}

/** The device to drive: the one named, or the first that is there. */
export function chooseDevice(wanted: string | undefined): PciFunction {
  if (wanted !== undefined) {
    const pci = pciFunction(wanted)
    if (isConsole(pci)) return pci
    const id = [pci.vendor, pci.device].map((n) => n.toString(16).padStart(4, '0')).join(':')
    throw new VmchannelError(
      'ERR_VMCHANNEL_NOT_FOUND',
      `${pci.bdf} is ${id}, not a virtio console (1af4:1043 or 1af4:1003)`,
    )
  }
  const [first] = findConsoleFunctions()
  if (first) return first
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', 'this machine has no virtio-serial device on PCI', {
    hint: 'Give it one on the host: vmchannel qemu -virtioserial …, or -device virtio-serial-pci.',
  })
}

/** Refuses a transitional device that has only its legacy interface (§4.1.2.1): it has no capabilities of virtio. */
export function checkModern(pci: PciFunction): void {
  const config = readFileSync(join(pci.path, 'config'))
  let at = config.length > PCI_CAPABILITY_LIST ? config[PCI_CAPABILITY_LIST]! & ~3 : 0
  for (let seen = 0; at >= 0x40 && at + 4 <= config.length && seen < 48; seen++) {
    if (config[at] === PCI_CAP_ID_VNDR && config[at + 3] === VIRTIO_PCI_CAP_COMMON_CFG) return
    at = config[at + 1]! & ~3
  }
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${pci.bdf} has only the interface from before virtio 1.0`, {
    hint: 'The kernel can drive it, this driver cannot. Give the device disable-modern=off on the host (QEMU), or leave it out.',
  })
}

/** VFIO where the device goes through an IOMMU: the kernel's driver has accepted ACCESS_PLATFORM then (bit 33). */
export function suggestDriver(pci: PciFunction): 'uio' | 'vfio' {
  if (!existsSync(join(pci.path, 'iommu_group'))) return 'uio'
  for (const virtio of list(pci.path).filter((name) => /^virtio\d+$/.test(name))) {
    const bits = readFileSync(join(pci.path, virtio, 'features'), 'latin1').trim()
    if (bits.includes('1')) return bits[33] === '1' ? 'vfio' : 'uio'
  }
  // Nobody has it, or a driver that was killed: in a machine with an IOMMU it was VFIO, more likely than not.
  return driverOf(pci) === 'uio_pci_generic' ? 'uio' : 'vfio'
}

/** Refuses a device that somebody else uses, before it is taken away from them. */
export function checkFree(pci: PciFunction): void {
  const driver = driverOf(pci)
  if (driver !== undefined && !OURS_TO_TAKE.includes(driver))
    throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${pci.bdf} is bound to ${driver}`, {
      hint: `Give it back first: echo ${pci.bdf} >${join(pci.path, 'driver', 'unbind')}`,
    })
  const users = openPorts(pci)
  if (users.length === 0) return
  throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${pci.bdf} is in use: ${users.join(', ')}`, {
    hint: 'End those programs, or take it all the same with --force: they will see their ports go.',
  })
}

/** "/dev/vport0p1 by 123 (spice-vdagentd)", for each open port of the device. */
function openPorts(pci: PciFunction): string[] {
  const nodes = portNodes(pci)
  if (nodes.size === 0) return []
  const users: string[] = []
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    for (const fd of list(`/proc/${pid}/fd`)) {
      const target = link(`/proc/${pid}/fd/${fd}`)
      if (target !== undefined && nodes.has(target)) users.push(`${target} by process ${pid}`)
    }
  }
  return users
}

function portNodes(pci: PciFunction): Set<string> {
  const nodes = new Set<string>()
  for (const virtio of list(pci.path).filter((name) => /^virtio\d+$/.test(name)))
    for (const port of list(join(pci.path, virtio, 'virtio-ports'))) nodes.add(`/dev/${port}`)
  return nodes
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function link(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}
