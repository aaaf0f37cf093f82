/**
 * Disk images that are cut, damaged or made to name another file: a look at the header takes them or says why not, in
 * an error that is for people, and none that it takes names another file by what QEMU looks at.
 */

import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { VmchannelError } from '../src/errors.ts'
import { lookAtDisk } from '../src/inspect/disk-file.ts'
import { DISK_FORMATS } from '../src/inspect/disk-formats.ts'
import { evilDisks, WHOLE } from '../test/support/disk-images.ts'
import { Random } from './random.ts'
import type { FuzzSession, FuzzTarget } from './target.ts'

const CASES = 40
const PAGE = 16 << 10
const ZEROS = Buffer.alloc(PAGE)
const SECRET = '/fuzz/secret.img'
/** Where fields are: headers, descriptors, tables. */
const REGIONS = [0, 0, 0, 16, 64, 512, 0x150, 1024, 2048, 192 << 10, (192 << 10) + 16, 1 << 20, (1 << 20) + (64 << 10)]
const MAGIC = ['QFI\xfb', 'KDMV', 'COWD', '# Disk DescriptorFile', 'vhdxfile', 'conectix', 'QED\0', 'regi', 'metadata']
const TEXTS = [
  ...[`RW 2048 FLAT "${SECRET}" 0\n`, `parentFileNameHint="${SECRET}"\n`, 'createType="vmfs"\n', 'parentCID=1\n'],
  ...['RW '.repeat(300), 'RW\r'.repeat(300), ' \t'.repeat(3000), '\r'.repeat(5000), '"'.repeat(600), `${SECRET}\0`],
]
const NUMBERS = [0n, 1n, 2n, 4n, 7n, 512n, 0x7fff_ffffn, 0xffff_ffffn, 1n << 32n, (1n << 63n) - 1n, (1n << 64n) - 1n]

function start(): FuzzSession {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-fuzz-'))
  const path = join(folder, 'disk')
  const images = [...Object.values(WHOLE).map((make) => make()), ...evilDisks(SECRET, SECRET).map(({ bytes }) => bytes)]
  return {
    episode(seed) {
      const r = new Random(seed)
      for (let i = 0; i < CASES; i++) {
        r.step()
        const image = mutate(r, r.pick(images))
        write(path, image)
        try {
          const { format, fd } = lookAtDisk(path, r.chance(20) ? r.pick(DISK_FORMATS) : undefined)
          closeSync(fd)
          assert.equal(otherFile(format, image), undefined, `taken as ${format}`)
        } catch (error) {
          if (!(error instanceof VmchannelError)) throw error
          assert.equal(error.code, 'ERR_VMCHANNEL_DISK')
          assert.ok(error.message.includes(path) && error.hint, error.message)
        }
      }
      return Promise.resolve(CASES)
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  }
}

function write(path: string, image: Buffer): void {
  const fd = openSync(path, 'w')
  // Pages of zeros need not be written.
  for (let at = 0; at < image.length; at += PAGE) {
    const page = image.subarray(at, at + PAGE)
    if (!ZEROS.subarray(0, page.length).equals(page)) writeSync(fd, page, 0, page.length, at)
  }
  ftruncateSync(fd, image.length)
  closeSync(fd)
}

function mutate(r: Random, base: Buffer): Buffer {
  if (r.chance(5)) return Buffer.concat([Buffer.from(r.pick(MAGIC), 'latin1'), r.bytes(r.below(600))])
  const image = Buffer.from(base)
  for (let count = r.below(4); count > 0; count--) {
    const at = r.pick(REGIONS) + r.below(120)
    if (at + 8 > image.length) continue
    const change = r.below(10)
    if (change < 4) image.set(r.bytes(1 + r.below(4)), at)
    else if (change < 6) image.writeBigUInt64LE(r.pick(NUMBERS), at & ~3)
    else if (change < 8) image.writeBigUInt64BE(r.pick(NUMBERS), at & ~3)
    else image.write(r.pick(TEXTS), at, 'latin1')
  }
  return r.chance(35) ? image.subarray(0, r.below(r.chance(70) ? Math.min(4096, image.length) : image.length)) : image
}

/** What QEMU would open besides, by the few fields that make it; written without a look at the checks. */
function otherFile(format: string, image: Buffer): string | undefined {
  if (format === 'qcow2') {
    if (image.readBigUInt64BE(8) !== 0n) return 'backing file'
    return image.readUInt32BE(4) === 3 && (image[79]! & 4) !== 0 ? 'data file' : undefined
  }
  if (format === 'qed') return (image[16]! & 1) !== 0 ? 'backing file' : undefined
  if (format !== 'vmdk') return undefined
  if (image.toString('latin1', 0, 4) !== 'KDMV' || image.readBigUInt64LE(12) === 0n) return 'extents'
  // A string of C: it ends with its first zero.
  const text = image
    .subarray(512, 512 + 20 * 512)
    .toString('latin1')
    .split('\0')[0]!
  return text.includes('parentFileNameHint="') ? 'parent' : undefined
}

export const DISK: FuzzTarget = { name: 'disk', title: 'headers of disk images, cut, damaged or hostile', start }
