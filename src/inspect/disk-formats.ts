/** How disk images begin: formats that are read, and what else has a magic of its own. Used by disk-file.ts. */

import { checkQcow2 } from './qcow2-header.ts'
import type { HeaderReader } from './header-reader.ts'
import { checkQed, checkVdi, checkVpc } from './small-headers.ts'
import { checkVhdx } from './vhdx-header.ts'
import { checkVmdk } from './vmdk-header.ts'

export const DISK_FORMATS = ['raw', 'qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc', 'qed'] as const
export type DiskFormat = (typeof DISK_FORMATS)[number]
export type MappedFormat = Exclude<DiskFormat, 'raw'>

/** Throws unless the image is whole as far as its header goes, and names no other file. */
export const CHECKS: Readonly<Record<MappedFormat, (header: HeaderReader) => void>> = {
  qcow2: checkQcow2,
  vmdk: checkVmdk,
  vdi: checkVdi,
  vhdx: checkVhdx,
  vpc: checkVpc,
  qed: checkQed,
}

const MAGIC: readonly (readonly [at: number, bytes: string, format: MappedFormat])[] = [
  [0, 'QFI\xfb', 'qcow2'],
  [0, 'KDMV', 'vmdk'],
  [0, 'COWD', 'vmdk'],
  [0, '\xbe\xba\xfe\xca\0\0\0\0', 'vmdk'],
  [0, '# Disk DescriptorFile', 'vmdk'],
  [0, 'vhdxfile', 'vhdx'],
  [0, 'conectix', 'vpc'],
  [0, 'QED\0', 'qed'],
  [0x40, '\x7f\x10\xda\xbe', 'vdi'],
]

export function formatOf(header: HeaderReader): MappedFormat | undefined {
  return MAGIC.find(([at, magic]) => header.has(at, magic))?.[2]
}

interface Stranger {
  at: number
  bytes: string
  what: string
  hint: string
}

/**
 * Disk images of formats that are not read here. A raw disk may begin like this as well: then its format is to be said.
 */
const convert = (format: string): string =>
  `convert it first: qemu-img convert -f ${format} -O qcow2 IMAGE NEW.qcow2 (a raw disk that only begins like this: --format raw)`
export const UNREAD: readonly Stranger[] = [
  { at: 0, bytes: 'WithoutFreeSpace', what: 'an image of Parallels', hint: convert('parallels') },
  { at: 0, bytes: 'WithouFreSpacExt', what: 'an image of Parallels', hint: convert('parallels') },
  { at: 0, bytes: 'Bochs Virtual HD Image', what: 'an image of Bochs', hint: convert('bochs') },
  { at: 0, bytes: '#!/bin/sh\n#V2.0 Format\n', what: 'a compressed loop image (cloop)', hint: convert('cloop') },
  {
    at: 0,
    bytes: 'shdw',
    what: 'an Apple sparse image (ASIF)',
    hint: 'convert it on macOS first: diskutil image create from (a raw disk that only begins like this: --format raw)',
  },
  {
    at: 0,
    bytes: 'sprs',
    what: 'an Apple sparse image (UDSP)',
    hint: 'convert it on macOS first: hdiutil convert -format UDTO',
  },
  {
    at: 0,
    bytes: 'encrcdsa',
    what: 'an encrypted Apple disk image',
    hint: 'open it on macOS first: hdiutil convert -format UDTO',
  },
  {
    at: 0,
    bytes: 'OOOM',
    what: 'a copy-on-write file of User-mode Linux, which names its backing file',
    hint: 'merge it first: uml_moo',
  },
  { at: 0, bytes: 'EVF\t\r\n\xff\0', what: 'an EnCase image', hint: 'convert it first: ewfexport -f raw' },
  { at: 0, bytes: 'partclone-image', what: 'an archive of partclone', hint: 'unpack it first: partclone.restore' },
  { at: 0, bytes: 'VMA\0', what: 'a backup of Proxmox VE', hint: 'unpack it first: vma extract' },
  { at: 0, bytes: '\x3a\xff\x26\xed', what: 'a sparse image of Android', hint: 'unpack it first: simg2img' },
]

/** At the end of the file. */
export const UNREAD_AT_END: Stranger = { at: -512, bytes: 'koly', what: 'an Apple disk image', hint: convert('dmg') }

/** What begins like this is no disk. */
export const STRANGERS: readonly Stranger[] = [
  { at: 0, bytes: '\x1f\x8b', what: 'is compressed with gzip', hint: 'unpack it first: gunzip' },
  { at: 0, bytes: '\xfd7zXZ\x00', what: 'is compressed with xz', hint: 'unpack it first: unxz' },
  { at: 0, bytes: '\x28\xb5\x2f\xfd', what: 'is compressed with zstd', hint: 'unpack it first: unzstd' },
  { at: 0, bytes: 'BZh', what: 'is compressed with bzip2', hint: 'unpack it first: bunzip2' },
  { at: 0, bytes: 'PK\x03\x04', what: 'is a zip archive', hint: 'unpack it first, and name the disk image in it' },
  {
    at: 257,
    bytes: 'ustar',
    what: 'is a tar archive',
    hint: 'unpack it first, and name the disk image in it (an .ova is such an archive)',
  },
  { at: 0, bytes: '\x7fELF', what: 'is a program, not a disk image', hint: 'name a disk image' },
  { at: 0, bytes: '%PDF', what: 'is a document, not a disk image', hint: 'name a disk image' },
  { at: 0, bytes: '\x89PNG', what: 'is a picture, not a disk image', hint: 'name a disk image' },
]
