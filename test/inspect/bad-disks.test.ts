/** What cannot be inspected: found out without an appliance where possible, and said so that one knows what to do. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { writePartitionTable } from '../../lab/sample-disk.ts'
import { findAppliance } from '../../src/inspect/appliance.ts'
import { lookAtDisk } from '../../src/inspect/disk-file.ts'
import { inspectDisk } from '../../src/inspect/inspect-disk.ts'

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
  change(header)
  return header
}

function failure(path: string, format?: 'raw' | 'qcow2'): unknown {
  try {
    lookAtDisk(path, format)
    return undefined
  } catch (error) {
    return error
  }
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

  it('formats are found, through links too; what was said is not questioned', () => {
    symlinkSync(file('q', qcow2()), join(dir, 'link'))
    expect(lookAtDisk(join(dir, 'link'))).toEqual({ format: 'qcow2', device: false })
    expect(lookAtDisk(join(dir, 'qb'), 'qcow2')).toEqual({ format: 'qcow2', device: false })
    expect(lookAtDisk(file('v', Buffer.from('KDMV'), 4096))).toEqual({ format: 'vmdk', device: false })
    expect(lookAtDisk(file('r', Buffer.alloc(4096, 0xa5)))).toEqual({ format: 'raw', device: false })
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
