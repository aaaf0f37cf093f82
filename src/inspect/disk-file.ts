/**
 * A first look at the file, before an appliance is booted for it: which format, and whether it can be a disk at all.
 * The format is said to QEMU, never guessed by it: a guest can write what it likes into its raw disk, also a header that
 * names another file of the host. Called by inspect-disk.ts.
 */

import { isUtf8 } from 'node:buffer'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'

export const DISK_FORMATS = ['raw', 'qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc', 'qed'] as const
export type DiskFormat = (typeof DISK_FORMATS)[number]

export interface DiskFile {
  format: DiskFormat
  /** A block device: QEMU has another driver for it. */
  device: boolean
}

const SECTOR = 512
const LOOK = 64 << 10
const LUKS = Buffer.from([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe])

/** What begins like this is no disk; with what to do about it. */
const STRANGERS: readonly (readonly [at: number, bytes: string, what: string, hint: string])[] = [
  [0, '\x1f\x8b', 'is compressed with gzip', 'unpack it first: gunzip'],
  [0, '\xfd7zXZ\x00', 'is compressed with xz', 'unpack it first: unxz'],
  [0, '\x28\xb5\x2f\xfd', 'is compressed with zstd', 'unpack it first: unzstd'],
  [0, 'BZh', 'is compressed with bzip2', 'unpack it first: bunzip2'],
  [0, 'PK\x03\x04', 'is a zip archive', 'unpack it first, and name the disk image in it'],
  [257, 'ustar', 'is a tar archive', 'unpack it first, and name the disk image in it (an .ova is such an archive)'],
  [0, '\x7fELF', 'is a program, not a disk image', 'name a disk image'],
  [0, '%PDF', 'is a document, not a disk image', 'name a disk image'],
  [0, '\x89PNG', 'is a picture, not a disk image', 'name a disk image'],
]

const MAGIC: readonly (readonly [at: number, bytes: string, format: DiskFormat])[] = [
  [0, 'QFI\xfb', 'qcow2'],
  [0, 'KDMV', 'vmdk'],
  [0, '# Disk DescriptorFile', 'vmdk'],
  [0, 'vhdxfile', 'vhdx'],
  [0, 'conectix', 'vpc'],
  [0, 'QED\0', 'qed'],
  [0x40, '\x7f\x10\xda\xbe', 'vdi'],
]

/** `given` is the format that the caller said; then nothing is guessed, and a backing file is followed. */
export function lookAtDisk(path: string, given?: DiskFormat): DiskFile {
  const fd = open(path)
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile() && !stat.isBlockDevice()) {
      throw new VmchannelError('ERR_VMCHANNEL_DISK', `${path} is ${kindOf(stat)}, not a disk image`, {
        hint: 'name a file with a disk image, or a block device',
      })
    }
    if (stat.isFile() && stat.size === 0) throw empty(path)
    const head = Buffer.alloc(LOOK)
    const bytes = head.subarray(0, readSync(fd, head, 0, LOOK, 0))
    const format = given ?? MAGIC.find(([at, magic]) => has(bytes, at, magic))?.[2] ?? 'raw'
    if (format === 'qcow2') checkQcow2(path, bytes, given !== undefined)
    else if (format === 'vmdk' && given === undefined && bytes[0] === 0x23)
      throw refuseReference(path, 'vmdk', 'extents')
    if (format === 'raw') checkRaw(path, fd, bytes, stat.isFile() ? stat.size : Infinity)
    return { format, device: stat.isBlockDevice() }
  } finally {
    closeSync(fd)
  }
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

function kindOf(stat: ReturnType<typeof fstatSync>): string {
  if (stat.isDirectory()) return 'a directory'
  if (stat.isSocket()) return 'a socket'
  return stat.isFIFO() ? 'a pipe' : 'a character device'
}

function checkQcow2(path: string, bytes: Buffer, trusted: boolean): void {
  if (bytes.length < 72) throw damaged(path, 'its qcow2 header is cut off')
  const version = bytes.readUInt32BE(4)
  if (version !== 2 && version !== 3) throw damaged(path, `qcow2 of version ${version}`)
  const clusterBits = bytes.readUInt32BE(20)
  if (clusterBits < 9 || clusterBits > 21) throw damaged(path, `qcow2 with clusters of 2^${clusterBits} bytes`)
  if (bytes.readUInt32BE(32) !== 0) throw encrypted(path, 'the qcow2 image')
  if (trusted) return
  if (bytes.readBigUInt64BE(8) !== 0n) throw refuseReference(path, 'qcow2', 'a backing file')
  // Bit 2 of the incompatible features: the data are in another file.
  if (version === 3 && (bytes.readBigUInt64BE(72) & 4n) !== 0n) throw refuseReference(path, 'qcow2', 'a data file')
}

function checkRaw(path: string, fd: number, bytes: Buffer, size: number): void {
  if (bytes.subarray(0, LUKS.length).equals(LUKS)) throw encrypted(path, 'the whole disk (LUKS)')
  if (has(bytes, 3, '-FVE-FS-')) throw encrypted(path, 'the whole disk (BitLocker)')
  const stranger = STRANGERS.find(([at, magic]) => has(bytes, at, magic))
  if (stranger) throw new VmchannelError('ERR_VMCHANNEL_DISK', `${path} ${stranger[2]}`, { hint: stranger[3] })
  if (size < SECTOR) throw notADisk(path, `it has ${size} bytes, less than a sector`)
  if (isText(bytes)) throw notADisk(path, 'it is a text')
  checkPartitions(path, bytes, size)
  if (bytes.every((byte) => byte === 0) && size !== Infinity && isZero(fd, size)) throw empty(path)
}

/** A partition behind the end of the file: the image was cut off, or copied only in part. */
function checkPartitions(path: string, bytes: Buffer, size: number): void {
  if (bytes.length < SECTOR || bytes.readUInt16LE(510) !== 0xaa55) return
  // A boot sector of a file system has the same signature, and other bytes where the entries would be.
  const entries = [0, 1, 2, 3].map((at) => bytes.subarray(446 + 16 * at, 462 + 16 * at))
  if (entries.some((entry) => entry[0] !== 0 && entry[0] !== 0x80)) return
  for (const [at, entry] of entries.entries()) {
    const [start, sectors] = [entry.readUInt32LE(8), entry.readUInt32LE(12)]
    // 0xee stands for a GPT, and may say more than there is.
    if (entry[4] === 0 || entry[4] === 0xee || sectors === 0) continue
    if (start * SECTOR < size) continue
    throw damaged(path, `partition ${at + 1} begins at byte ${start * SECTOR}, the file ends at ${size}`)
  }
}

/** Whether there is nothing but zeros: looked for in data only, holes are skipped by reading far apart first. */
function isZero(fd: number, size: number): boolean {
  const block = Buffer.alloc(1 << 20)
  const zeros = Buffer.alloc(1 << 20)
  // Beyond this it is the appliance's business: it finds nothing soon enough.
  for (let at = 0; at < Math.min(size, 1 << 30); at += block.length) {
    const len = readSync(fd, block, 0, block.length, at)
    if (Buffer.compare(block.subarray(0, len), zeros.subarray(0, len)) !== 0) return false
  }
  return size <= 1 << 30
}

function isText(bytes: Buffer): boolean {
  const head = bytes.subarray(0, 4096)
  if (head.some((byte) => (byte < 0x20 && (byte < 9 || byte > 13)) || byte === 0x7f)) return false
  // The last character may be cut off.
  return [0, 1, 2, 3].some((cut) => isUtf8(head.subarray(0, head.length - cut)))
}

function has(bytes: Buffer, at: number, magic: string): boolean {
  return bytes.length >= at + magic.length && bytes.toString('latin1', at, at + magic.length) === magic
}

function empty(path: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_DISK', `${path} is empty: nothing was ever written to this disk`, {
    hint: 'name the image that the guest was installed on',
  })
}

function notADisk(path: string, why: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_DISK', `${path} is no disk image: ${why}`, { hint: 'name a disk image' })
}

export function damaged(path: string, why: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_DISK', `${path} is damaged: ${why}`, {
    hint: 'compare it with the original, or repair it with the tools of its format (qemu-img check, fsck on a copy)',
  })
}

export function encrypted(path: string, what: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_DISK', `${path}: ${what} is encrypted`, {
    hint: 'open it with cryptsetup or qemu-img first, and inspect what is inside',
  })
}

function refuseReference(path: string, format: string, what: string): VmchannelError {
  return new VmchannelError(
    'ERR_VMCHANNEL_DISK',
    `${path} is ${format} with ${what}, and could name any file of this host`,
    {
      hint: `if you trust it, say --format ${format}`,
    },
  )
}
