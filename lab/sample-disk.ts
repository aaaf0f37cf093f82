/**
 * A small Debian disk for inspection: one partition, or none, with what identifies a system and the package database of
 * some hundred packages. Made of the fetched packages, without root and without a mount.
 */
import { cp, mkdir, open, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { command } from './command.ts'
import type { Guestfs } from './fetch/guestfs.ts'

export interface SampleOptions {
  hostname?: string
  fstab?: string
  /** Megabytes of the partition. */
  size?: number
  /** 4096: a GUID partition table for such sectors; default a master boot record. */
  sectorSize?: 4096
}

const MIB = 1 << 20
const UUID = '6a1f6c1e-8f5b-4a8e-9d0e-5d3c1c2b7a10'
const FSTAB = `UUID=${UUID} / ext4 defaults 0 1\n/dev/sda9 /nowhere ext4 defaults 0 2\n`
/** Programs that tell the architecture, and what makes a folder a root file system. */
const FILES = ['usr/bin/bash', 'usr/bin/ls', 'usr/lib/os-release']

/** The files of the system, in a folder: for a disk that is made in the appliance (tar-in). */
export async function sampleRoot(
  guestfs: Guestfs,
  folder: string,
  { hostname = 'sample', fstab = FSTAB }: SampleOptions = {},
): Promise<void> {
  for (const name of [
    'boot',
    'dev',
    'etc',
    'home',
    'proc',
    'root',
    'run',
    'sys',
    'tmp',
    'usr/sbin',
    'usr/lib',
    'var/lib/dpkg',
  ]) {
    await mkdir(join(folder, name), { recursive: true })
  }
  for (const name of FILES) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await cp(join(guestfs.tree, name), join(folder, name))
  }
  for (const name of ['bin', 'sbin', 'lib']) await symlink(`usr/${name}`, join(folder, name))
  await symlink('../usr/lib/os-release', join(folder, 'etc/os-release'))
  await cp(join(guestfs.tree, 'etc/debian_version'), join(folder, 'etc/debian_version'))
  await writeFile(join(folder, 'etc/hostname'), `${hostname}\n`)
  await writeFile(join(folder, 'etc/fstab'), fstab)
  const status = await readFile(join(guestfs.tree, 'dpkg-status'), 'utf8')
  await writeFile(join(folder, 'var/lib/dpkg/status'), status + ODD_PACKAGES)
}

/** Records that an inspector must get right: removed, and nearly empty. */
const ODD_PACKAGES = `
Package: once-installed
Status: deinstall ok config-files
Architecture: all
Version: 1.0-1

Package: bare
Status: install ok installed
Version: 3:0~beta1+ds
`

/** A raw image with one partition of type ext4. */
export async function sampleDisk(guestfs: Guestfs, image: string, options: SampleOptions = {}): Promise<void> {
  const { size = 64 } = options
  const folder = `${image}.root`
  await sampleRoot(guestfs, folder, options)
  try {
    if (options.sectorSize === undefined) await writePartitionTable(image, size)
    else await writeGuidPartitionTable(image, size, options.sectorSize)
    const place = ['-E', `offset=${MIB},root_owner=0:0`]
    const block = options.sectorSize === undefined ? [] : ['-b', String(options.sectorSize)]
    const names = ['-L', 'sample-root', '-U', UUID]
    const words = ['-q', '-F', '-t', 'ext4', ...block, ...names, ...place, '-d', folder, image, `${size}M`]
    await command(join(guestfs.bin, 'mke2fs'), words)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** A master boot record with one Linux partition from 1 MiB on. */
export async function writePartitionTable(image: string, megabytes: number): Promise<void> {
  const sector = Buffer.alloc(512)
  sector[446 + 4] = 0x83
  sector.writeUInt32LE(MIB / 512, 446 + 8)
  sector.writeUInt32LE((megabytes * MIB) / 512, 446 + 12)
  sector.writeUInt16LE(0xaa55, 510)
  const file = await open(image, 'w')
  await file.write(sector)
  await file.truncate((megabytes + 1) * MIB)
  await file.close()
}

/** A GUID partition table with one Linux partition from 1 MiB on; without the copy at the end of the disk. */
async function writeGuidPartitionTable(image: string, megabytes: number, sectorSize: number): Promise<void> {
  const last = ((megabytes + 2) * MIB) / sectorSize - 1
  const entries = Buffer.alloc(128 * 128)
  entries.set(Buffer.from('af3dc60f838472478e793d69d8477de4', 'hex'), 0) // Linux data
  entries.set(Buffer.from('00112233445566778899aabbccddeeff', 'hex'), 16)
  entries.writeBigUInt64LE(BigInt(MIB / sectorSize), 32)
  entries.writeBigUInt64LE(BigInt(((megabytes + 1) * MIB) / sectorSize - 1), 40)
  const header = Buffer.alloc(92)
  header.write('EFI PART')
  header.writeUInt32LE(0x10000, 8)
  header.writeUInt32LE(header.length, 12)
  header.writeBigUInt64LE(1n, 24)
  header.writeBigUInt64LE(BigInt(last), 32)
  header.writeBigUInt64LE(BigInt(2 + entries.length / sectorSize), 40)
  header.writeBigUInt64LE(BigInt(last - 1 - entries.length / sectorSize), 48)
  header.set(Buffer.from('ffeeddccbbaa99887766554433221100', 'hex'), 56)
  header.writeBigUInt64LE(2n, 72)
  header.writeUInt32LE(128, 80)
  header.writeUInt32LE(128, 84)
  header.writeUInt32LE(crc32(entries), 88)
  header.writeUInt32LE(crc32(header), 16)
  const protective = Buffer.alloc(512)
  protective[446 + 4] = 0xee
  protective.writeUInt32LE(1, 446 + 8)
  protective.writeUInt32LE(last, 446 + 12)
  protective.writeUInt16LE(0xaa55, 510)
  const file = await open(image, 'w')
  await file.write(protective)
  await file.write(header, 0, header.length, sectorSize)
  await file.write(entries, 0, entries.length, 2 * sectorSize)
  await file.truncate((megabytes + 2) * MIB)
  await file.close()
}
