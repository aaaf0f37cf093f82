/**
 * A first look at the file, before an appliance is booted for it: which format, whether it can be a disk at all, and
 * that it names no other file. The format is said to QEMU, never guessed by it: a guest can write what it likes into
 * its raw disk, also a header that names another file of the host. The file is opened here, once; QEMU gets the
 * descriptor. Called by inspect-disk.ts.
 */

import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { diskError, empty } from './disk-errors.ts'
import { CHECKS, type DiskFormat, formatOf } from './disk-formats.ts'
import { HeaderReader } from './header-reader.ts'
import { checkRaw, sectorSize } from './raw-disk.ts'
import { hasVpcFooter } from './small-headers.ts'

export interface DiskFile {
  path: string
  format: DiskFormat
  /** A block device: QEMU has another driver for it. */
  device: boolean
  /** Open for reading; the caller's to close. */
  fd: number
  /** Bytes of the file, not of the disk in it. */
  size: number
  /** The beginning as it was checked. */
  head: Uint8Array
  /** What the disk's partition table counts in; 512 where that cannot be seen from outside. */
  sectorSize: 512 | 4096
}

const LOOK = 64 << 10

/** `given` is the format that the caller said. Every format is checked, said or found. */
export function lookAtDisk(path: string, given?: DiskFormat): DiskFile {
  const fd = open(path)
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile() && !stat.isBlockDevice())
      throw diskError(
        `${path} is ${kindOf(stat)}, not a disk image`,
        'name a file with a disk image, or a block device',
      )
    const size = stat.isFile() ? stat.size : deviceSize(path, stat.rdev)
    if (size === 0) throw empty(path)
    const header = new HeaderReader(path, fd, size, LOOK)
    const format = given ?? formatOf(header) ?? 'raw'
    if (format === 'raw') checkRaw(header, fd, stat.isFile(), given === 'raw')
    else {
      checkGiven(header, format)
      CHECKS[format](header)
    }
    const large = format === 'raw' ? sectorSize(header) : 512
    return { path, format, device: stat.isBlockDevice(), fd, size, head: header.head, sectorSize: large }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** QEMU reads some formats in other ways where their magic is missing: a VMDK is a text with names of files then. */
function checkGiven(header: HeaderReader, given: DiskFormat): void {
  const found = formatOf(header)
  if (found === given || (given === 'vpc' && hasVpcFooter(header))) return
  throw diskError(
    `${header.path} is not ${given}: it begins like ${found ?? 'a raw disk, or a format that is not known'}`,
    found ? `say --format ${found}, or leave it out` : 'leave --format out, or say --format raw',
  )
}

function open(path: string): number {
  try {
    // A pipe without a writer must not hold us up.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    const { code = '' } = cause as NodeJS.ErrnoException
    const detail = { errno: code, syscall: 'open', cause }
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${path} does not exist`, {
        ...detail,
        hint: 'name a disk image',
      })
    const hint =
      code === 'EACCES' ? 'reading it is all that is needed: chmod, or run as its owner' : 'name a disk image'
    throw new VmchannelError('ERR_VMCHANNEL_DISK', `${path} cannot be read: ${code}`, { ...detail, hint })
  }
}

/** Of a block device: stat says nothing of it. */
function deviceSize(path: string, rdev: number): number {
  const major = Math.floor(rdev / 256) & 0xfff
  const minor = (rdev & 0xff) | (Math.floor(rdev / 4096) & ~0xff)
  try {
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'latin1')) * 512
  } catch (cause) {
    throw new VmchannelError('ERR_VMCHANNEL_DISK', `${path}: the kernel does not say how large this device is`, {
      hint: 'is /sys mounted? Else copy the device into a file, and inspect that',
      cause,
    })
  }
}

function kindOf(stat: Stats): string {
  if (stat.isDirectory()) return 'a directory'
  if (stat.isSocket()) return 'a socket'
  return stat.isFIFO() ? 'a pipe' : 'a character device'
}
