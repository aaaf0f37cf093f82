/** A raw image: what it begins with must not be something else, and it must be whole. Called by disk-file.ts. */

import { isUtf8 } from 'node:buffer'
import { readSync } from 'node:fs'
import { damaged, diskError, empty, encrypted, notADisk } from './disk-errors.ts'
import { STRANGERS, UNREAD, UNREAD_AT_END } from './disk-formats.ts'
import type { HeaderReader } from './header-reader.ts'

const SECTOR = 512
/** Where the header of a GUID partition table is, sectors of 4096 bytes given. */
const LARGE_SECTOR = 4096
const GPT = 'EFI PART'

/** `given`: the caller said that it is raw; then it may begin like an image of another format. */
export function checkRaw(header: HeaderReader, fd: number, isFile: boolean, given: boolean): void {
  const { path, size, head } = header
  if (header.has(0, 'LUKS\xba\xbe')) throw encrypted(path, 'the whole disk (LUKS)')
  if (header.has(3, '-FVE-FS-')) throw encrypted(path, 'the whole disk (BitLocker)')
  const stranger = STRANGERS.find(({ at, bytes }) => header.has(at, bytes))
  if (stranger) throw diskError(`${path} ${stranger.what}`, stranger.hint)
  if (!given) checkUnread(header)
  if (size < SECTOR) throw notADisk(path, `it has ${size} bytes, less than a sector`)
  if (isText(head)) throw notADisk(path, 'it is a text')
  if (isFile) checkPartitions(path, head, size)
  if (isFile && head.every((byte) => byte === 0) && isZero(fd, size)) throw empty(path)
}

/** The size of sectors that its partition table is made for. */
export function sectorSize(header: HeaderReader): 512 | 4096 {
  return header.has(LARGE_SECTOR, GPT) && !header.has(SECTOR, GPT) ? LARGE_SECTOR : SECTOR
}

function checkUnread(header: HeaderReader): void {
  const at = header.size + UNREAD_AT_END.at
  const found = header.has(at, UNREAD_AT_END.bytes)
    ? UNREAD_AT_END
    : UNREAD.find(({ at: where, bytes }) => header.has(where, bytes))
  if (found) throw diskError(`${header.path} is ${found.what}, which is not read here`, found.hint)
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
