/** VHDX: whether an image has a parent, by its region table and its metadata ([MS-VHDX] 2.2 and 2.6). */

import { damaged, namesAnother, notRead } from './disk-errors.ts'
import type { HeaderReader } from './header-reader.ts'

const REGION_TABLE = 192 << 10
const REGION_TABLE_LEN = 64 << 10
const REGIONS_MAX = 2047
const METADATA = guid('8B7CA206-4790-4B9A-B8FE-575F050F886E')
const BAT = guid('2DC27766-F623-4200-9D64-115E9BFD4A08')
const METADATA_TABLE_LEN = 64 << 10
const ITEMS_MAX = 2047
const FILE_PARAMETERS = guid('CAA16737-FA36-4D43-B3B6-33F0AA44E76B')
const PARENT_LOCATOR = guid('A8D35F2D-B30B-454D-ABF7-D3D84834AB0C')
const HAS_PARENT = 2
const REQUIRED = 1

export function checkVhdx(header: HeaderReader): void {
  const { path } = header
  const table = header.block(REGION_TABLE, REGION_TABLE_LEN, 'vhdx region table')
  if (table.text(0, 4) !== 'regi') throw damaged(path, 'its vhdx region table has no signature')
  const count = table.u32le(8)
  let metadata: { at: bigint; len: number } | undefined
  for (const at of entries(path, count, 16, REGIONS_MAX, 'regions')) {
    const id = table.text(at, 16)
    if (id === METADATA) metadata = { at: table.u64le(at + 16), len: table.u32le(at + 24) }
    else if (id !== BAT && (table.u32le(at + 28) & REQUIRED) !== 0)
      throw notRead(path, 'vhdx with a region of an unknown kind', 'qemu-img convert -f vhdx -O qcow2')
  }
  if (metadata === undefined) throw damaged(path, 'its vhdx region table has no metadata')
  checkMetadata(header, metadata.at, metadata.len)
}

function checkMetadata(header: HeaderReader, start: bigint, len: number): void {
  const { path } = header
  if (len < METADATA_TABLE_LEN) throw damaged(path, `vhdx metadata of ${len} bytes`)
  const table = header.block(start, METADATA_TABLE_LEN, 'vhdx metadata')
  if (table.text(0, 8) !== 'metadata') throw damaged(path, 'its vhdx metadata has no signature')
  let parameters = false
  for (const at of entries(path, table.u16le(10), 32, ITEMS_MAX, 'items of metadata')) {
    const id = table.text(at, 16)
    if (id === PARENT_LOCATOR) throw namesAnother(path, 'vhdx', 'a parent')
    if (id !== FILE_PARAMETERS) continue
    const offset = table.u32le(at + 16)
    if (offset > len - 8) throw damaged(path, `vhdx file parameters at byte ${offset} of its metadata`)
    const item = header.block(start + BigInt(offset), 8, 'vhdx metadata')
    if ((item.u32le(4) & HAS_PARENT) !== 0) throw namesAnother(path, 'vhdx', 'a parent')
    parameters = true
  }
  if (!parameters) throw damaged(path, 'its vhdx metadata has no file parameters')
}

/** Where the entries of a table begin; they have 32 bytes each. */
function entries(path: string, count: number, first: number, max: number, what: string): number[] {
  if (count > max) throw damaged(path, `${count} ${what} in its vhdx header`)
  return Array.from({ length: count }, (_, index) => first + 32 * index)
}

/** As it lies in the file: three little-endian numbers, then bytes. */
function guid(text: string): string {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  bytes.subarray(0, 4).reverse()
  bytes.subarray(4, 6).reverse()
  bytes.subarray(6, 8).reverse()
  return bytes.toString('latin1')
}
