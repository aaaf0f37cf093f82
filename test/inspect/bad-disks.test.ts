/** What cannot be inspected: found out without an appliance where possible, and said so that one knows what to do. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { writePartitionTable } from '../../lab/sample-disk.ts'
import { findAppliance } from '../../src/inspect/appliance.ts'
import { lookAtDisk } from '../../src/inspect/disk-file.ts'
import type { DiskFormat } from '../../src/inspect/disk-formats.ts'
import { inspectDisk } from '../../src/inspect/inspect-disk.ts'
import { qcow2 as wholeQcow2, vmdk, WHOLE } from '../support/disk-images.ts'

const dir = mkdtempSync(join(tmpdir(), 'vmchannel-disks-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function file(name: string, bytes: Uint8Array | string, size?: number): string {
  const path = join(dir, name)
  writeFileSync(path, bytes)
  if (size !== undefined) truncateSync(path, size)
  return path
}

function qcow2(change: (header: Buffer) => void = () => {}): Buffer {
  const header = Buffer.alloc(512)
  header.write('QFI\xfb', 0, 'latin1')
  header.writeUInt32BE(3, 4)
  header.writeUInt32BE(16, 20)
  header.writeBigUInt64BE(1n << 20n, 24)
  header.writeUInt32BE(104, 100)
  change(header)
  return header
}

function format(path: string, given?: DiskFormat): DiskFormat {
  const { fd, format: found } = lookAtDisk(path, given)
  closeSync(fd)
  return found
}

function failure(path: string, given?: DiskFormat): unknown {
  try {
    format(path, given)
    return undefined
  } catch (error) {
    return error
  }
}

function footless(): Buffer {
  return vmdk({ createType: 'streamOptimized', footer: { capacity: 2048 } }).subarray(0, -1024)
}

function koly(): Buffer {
  const image = Buffer.alloc(4096, 1)
  image.write('koly', 4096 - 512)
  return image
}

describe('a look at the file', () => {
  it.each<[string, () => string, RegExp]>([
    ['an empty file', () => file('none', ''), /is empty/],
    ['nothing but zeros', () => file('zeros', '', 3 << 20), /is empty: nothing was ever written/],
    ['a text', () => file('text', 'hello, world\n'.repeat(100)), /no disk image: it is a text/],
    ['a few bytes', () => file('few', Buffer.of(1, 2, 3)), /less than a sector/],
    ['a compressed image', () => file('gz', gzipSync(Buffer.alloc(1000))), /compressed with gzip/],
    ['a program', () => file('elf', Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(2000, 1)])), /is a program/],
    ['a directory', () => dir, /is a directory, not a disk image/],
    ['LUKS on all of it', () => file('luks', Buffer.from('LUKS\xba\xbe', 'latin1'), 1 << 20), /\(LUKS\) is encrypted/],
    ['BitLocker on all of it', () => file('bde', Buffer.from('\xeb\x58\x90-FVE-FS-', 'latin1'), 1 << 20), /BitLocker/],
    [
      'an encrypted qcow2',
      () =>
        file(
          'qe',
          qcow2((h) => h.writeUInt32BE(2, 32)),
        ),
      /the qcow2 image is encrypted/,
    ],
    ['a qcow2 cut off', () => file('qc', qcow2().subarray(0, 40)), /damaged: its qcow2 header is cut off/],
    [
      'a qcow2 of version 9',
      () =>
        file(
          'q9',
          qcow2((h) => h.writeUInt32BE(9, 4)),
        ),
      /damaged: qcow2 of version 9/,
    ],
    [
      'a backing file',
      () =>
        file(
          'qb',
          qcow2((h) => h.writeBigUInt64BE(256n, 8)),
        ),
      /with a backing file, and could name/,
    ],
    [
      'a data file',
      () =>
        file(
          'qd',
          qcow2((h) => h.writeBigUInt64BE(4n, 72)),
        ),
      /with a data file/,
    ],
    [
      'a qcow of version 1',
      () => file('q1', wholeQcow2({ version: 1 })),
      /is qcow of version 1, which is not read here/,
    ],
    [
      'a qcow2 that says of itself that it is corrupt',
      () => file('qx', wholeQcow2({ features: 2n })),
      /damaged: its qcow2 header says that it is corrupt/,
    ],
    ['a vmdk whose end is missing', () => file('vf', footless()), /its vmdk footer is cut off/],
    ['an extent of a VMDK in several files', () => file('ext', vmdk({ descriptorAt: 0 })), /an extent of another vmdk/],
    ['an extent of ESX', () => file('cowd', 'COWD', 4096), /an extent of VMware ESX \(COWD\), which is not read here/],
    ['an Apple sparse image', () => file('asif', 'shdw', 4096), /is an Apple sparse image \(ASIF\), which is not read/],
    ['an Apple disk image', () => file('dmg', koly()), /is an Apple disk image, which is not read here/],
    ['an image of Parallels', () => file('hdd', 'WithouFreSpacExt\x02', 4096), /is an image of Parallels/],
  ])('%s', (_, make, message) => {
    const path = make()
    expect(failure(path)).toMatchObject({ code: 'ERR_VMCHANNEL_DISK', hint: expect.any(String) as string })
    expect(String(failure(path))).toMatch(message)
    expect(String(failure(path))).toContain(path)
  })

  it('an image that was copied in part', async () => {
    const path = join(dir, 'part')
    await writePartitionTable(path, 8)
    expect(failure(path)).toBeUndefined()
    truncateSync(path, 1 << 20)
    expect(String(failure(path))).toMatch(/damaged: partition 1 begins at byte 1048576, the file ends at 1048576/)
  })

  it('no such file; a pipe', () => {
    expect(failure(join(dir, 'nowhere'))).toMatchObject({ code: 'ERR_VMCHANNEL_NOT_FOUND', errno: 'ENOENT' })
    execFileSync('mkfifo', [join(dir, 'pipe')])
    expect(String(failure(join(dir, 'pipe')))).toMatch(/is a pipe, not a disk image/)
  })

  it('formats are found, through links too', () => {
    symlinkSync(file('q', qcow2()), join(dir, 'link'))
    expect(format(join(dir, 'link'))).toBe('qcow2')
    expect(format(file('r', Buffer.alloc(4096, 0xa5)))).toBe('raw')
    for (const [name, make] of Object.entries(WHOLE)) {
      const expected = /^\w+/.exec(name)![0] as DiskFormat
      const path = file('whole', make())
      expect([name, format(path), format(path, expected)]).toEqual([name, expected, expected])
    }
  })

  it('what was said is checked all the same; as raw a disk may begin with anything', () => {
    expect(String(failure(join(dir, 'qb'), 'qcow2'))).toMatch(/with a backing file, and could name any file/)
    expect(String(failure(join(dir, 'r'), 'vmdk'))).toMatch(/is not vmdk: it begins like a raw disk/)
    expect(String(failure(join(dir, 'q'), 'vmdk'))).toMatch(/is not vmdk: it begins like qcow2/)
    for (const name of ['qb', 'asif', 'cowd', 'dmg']) expect(format(join(dir, name), 'raw')).toBe('raw')
  })

  it('a partition table for sectors of 4096 bytes', () => {
    const disk = Buffer.alloc(64 << 10)
    disk.write('EFI PART', 4096)
    const { fd, sectorSize } = lookAtDisk(file('4k', disk))
    closeSync(fd)
    expect(sectorSize).toBe(4096)
    disk.write('EFI PART', 512)
    const usual = lookAtDisk(file('4k', disk))
    closeSync(usual.fd)
    expect(usual.sectorSize).toBe(512)
  })
})

describe('the appliance', () => {
  const step = (): void => {}

  it('is not installed: the error names the package', async () => {
    const empty = join(dir, 'empty')
    mkdirSync(empty)
    await expect(findAppliance({ LIBGUESTFS_PATH: empty }, step)).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_NOT_FOUND',
      message: `libguestfs's appliance is not installed (LIBGUESTFS_PATH names ${empty})`,
      hint: expect.stringContaining('apt install libguestfs0 supermin') as string,
    })
  })

  it('is to be made, and supermin is not there: the error names the package', async () => {
    const folder = join(dir, 'guestfs')
    mkdirSync(join(folder, 'supermin.d'), { recursive: true })
    const { PATH } = process.env
    process.env['PATH'] = join(dir, 'empty-path')
    try {
      const env = { LIBGUESTFS_PATH: folder, LIBGUESTFS_CACHEDIR: dir }
      await expect(findAppliance(env, step)).rejects.toMatchObject({
        code: 'ERR_VMCHANNEL_NOT_FOUND',
        hint: expect.stringContaining('install the package supermin') as string,
      })
    } finally {
      process.env['PATH'] = PATH
    }
  })

  it('is made by supermin, and a cache that others can write is not used', async () => {
    const bin = join(dir, 'bin')
    mkdirSync(bin)
    const root = join(dir, 'ext2')
    const block = Buffer.alloc(4096)
    block.writeUInt16LE(0xef53, 1024 + 0x38)
    block.set(Buffer.from('00112233445566778899aabbccddeeff', 'hex'), 1024 + 0x68)
    writeFileSync(root, block)
    // The folder is its last word.
    const script = `#!/bin/sh\necho "$*" >${dir}/words\nfor last; do :; done\nmkdir -p $last\ncp ${root} $last/root\n`
    writeFileSync(join(bin, 'supermin'), script, { mode: 0o755 })
    const cache = join(dir, 'cache')
    mkdirSync(cache)
    const folder = join(dir, 'guestfs')
    const { PATH } = process.env
    process.env['PATH'] = `${bin}:${PATH}`
    const steps: string[] = []
    try {
      const env = { LIBGUESTFS_PATH: folder, LIBGUESTFS_CACHEDIR: cache }
      const found = await findAppliance(env, (text) => steps.push(text))
      const home = join(cache, `.guestfs-${process.getuid!()}`)
      expect(found.uuid).toBe('00112233-4455-6677-8899-aabbccddeeff')
      expect(found.kernel).toBe(join(home, 'appliance.d', 'kernel'))
      expect(steps).toEqual(['making the appliance with supermin (once)'])
      execFileSync('chmod', ['777', home])
      await expect(findAppliance(env, step)).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_PLATFORM' })
    } finally {
      process.env['PATH'] = PATH
    }
  })
})

it('a call that is aborted before it began', async () => {
  await expect(inspectDisk(join(dir, 'r'), { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: 'ERR_VMCHANNEL_ABORTED',
  })
})
