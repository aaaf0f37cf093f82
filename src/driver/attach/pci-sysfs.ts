/**
 * PCI functions as sysfs shows them: finding consoles, who drives them, taking them over and giving them back. Called
 * by the attachments for UIO and VFIO, and by the guest's program.
 */

import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { VmchannelError } from '../../errors.ts'
import {
  PCI_DEVICE_ID_VIRTIO_BASE,
  PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE,
  PCI_VENDOR_ID_VIRTIO,
  VIRTIO_ID_CONSOLE,
} from '../../spec/pci.ts'

const BUS = '/sys/bus/pci'
const DEVICES = join(BUS, 'devices')
const ADDRESS = /^([0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i
/** linux/ioport.h: a region of I/O ports in the file `resource`. */
const IORESOURCE_IO = 0x100

export interface PciFunction {
  /** "0000:00:03.0". */
  readonly bdf: string
  /** Its folder in sysfs. */
  readonly path: string
  readonly vendor: number
  readonly device: number
}

export interface PciResource {
  readonly size: number
  readonly io: boolean
}

/** All virtio console functions, in the order of their addresses. */
export function findConsoleFunctions(): PciFunction[] {
  if (!existsSync(DEVICES)) return []
  return readdirSync(DEVICES)
    .toSorted()
    .map(readFunction)
    .filter((found) => found !== undefined)
    .filter(isConsole)
}

export function isConsole({ vendor, device }: PciFunction): boolean {
  const modern = PCI_DEVICE_ID_VIRTIO_BASE + VIRTIO_ID_CONSOLE
  return vendor === PCI_VENDOR_ID_VIRTIO && (device === modern || device === PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE)
}

/** The function at an address, with or without its domain; VmchannelError where there is none. */
export function pciFunction(text: string): PciFunction {
  if (!ADDRESS.test(text))
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `"${text}" is not the address of a PCI function`, {
      hint: 'Write it as lspci does: 00:03.0 or 0000:00:03.0.',
    })
  const bdf = (/^[0-9a-f]{4}:/i.test(text) ? text : `0000:${text}`).toLowerCase()
  const found = readFunction(bdf)
  if (found) return found
  const others = findConsoleFunctions().map((other) => other.bdf)
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `there is no PCI function ${bdf}`, {
    hint: others.length > 0 ? `Consoles are at ${others.join(', ')}.` : 'This machine has no virtio console on PCI.',
  })
}

function readFunction(bdf: string): PciFunction | undefined {
  const path = join(DEVICES, bdf)
  try {
    return { bdf, path, vendor: Number(read(join(path, 'vendor'))), device: Number(read(join(path, 'device'))) }
  } catch {
    return undefined
  }
}

/** BAR 0…5. */
export function resources(pci: PciFunction): PciResource[] {
  const lines = read(join(pci.path, 'resource')).split('\n').slice(0, 6)
  return lines.map((line) => {
    const [start = 0n, end = 0n, flags = 0n] = line.split(' ').map(BigInt)
    return { size: end === 0n ? 0 : Number(end - start + 1n), io: (flags & BigInt(IORESOURCE_IO)) !== 0n }
  })
}

/** Name of the kernel driver that has it; undefined: none. */
export function driverOf(pci: PciFunction): string | undefined {
  try {
    return basename(readlinkSync(join(pci.path, 'driver')))
  } catch {
    return undefined
  }
}

export function driverLoaded(driver: string): boolean {
  return existsSync(join(BUS, 'drivers', driver))
}

/** Gives the function to one driver alone, away from the one that has it. */
export function bindDriver(pci: PciFunction, driver: string): void {
  if (driverOf(pci) === driver) return
  unbindDriver(pci)
  write(join(pci.path, 'driver_override'), `${driver}\n`)
  write(join(BUS, 'drivers_probe'), pci.bdf)
  const now = driverOf(pci)
  if (now === driver) return
  write(join(pci.path, 'driver_override'), '\n')
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${pci.bdf}: ${driver} does not take the device`, {
    hint:
      driver === 'uio_pci_generic'
        ? 'It takes no function without an interrupt pin. The kernel log (dmesg) says more.'
        : 'The kernel log (dmesg) says why.',
  })
}

export function unbindDriver(pci: PciFunction): void {
  if (driverOf(pci) !== undefined) write(join(pci.path, 'driver', 'unbind'), pci.bdf)
}

/** Lets the kernel choose a driver as if we had never been here. */
export function giveBack(pci: PciFunction): void {
  if (!existsSync(pci.path)) return
  unbindDriver(pci)
  write(join(pci.path, 'driver_override'), '\n')
  write(join(BUS, 'drivers_probe'), pci.bdf)
}

function read(path: string): string {
  return readFileSync(path, 'latin1').trim()
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text)
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code ?? 'unknown error'
    const locked = errno === 'EPERM'
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${path} cannot be written: ${errno}`, {
      errno,
      cause,
      ...(locked ? { hint: 'A kernel in lockdown (Secure Boot) does not let programs drive devices.' } : {}),
    })
  }
}
