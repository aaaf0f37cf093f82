/**
 * VMDK: monolithicSparse and streamOptimized are one file. Everything else is a text that names extents, or begins with
 * a header that has QEMU read such a text: where the capacity is 0, the descriptor inside is used as if it were a file.
 */

import { cutOff, damaged, namesAnother, notRead } from './disk-errors.ts'
import type { Block, HeaderReader } from './header-reader.ts'

const SECTOR = 512
const HEADER_LEN = 79
/** The grain directory is at the end of the file, after a footer. */
const AT_END = 0xffff_ffff_ffff_ffffn
/** As much as QEMU reads of a descriptor. */
const DESCRIPTOR_MAX = 1 << 20
/** Where QEMU looks for a parent, whatever the header says; and how much of it. */
const USUAL_DESCRIPTOR = SECTOR
const USUAL_LEN = 20 * SECTOR
const ONE_FILE: ReadonlySet<string> = new Set(['monolithicsparse', 'streamoptimized'])
const CONVERT = 'qemu-img convert -f vmdk -O qcow2 IMAGE NEW.qcow2'

export function checkVmdk(header: HeaderReader): void {
  const { path } = header
  if (header.has(0, 'COWD')) throw notRead(path, 'an extent of VMware ESX (COWD)', CONVERT)
  if (header.has(0, '\xbe\xba\xfe\xca')) throw notRead(path, 'an extent of VMware ESXi (SESPARSE)', CONVERT)
  if (!header.has(0, 'KDMV')) throw namesAnother(path, 'vmdk', 'extents')
  const head = header.block(0, HEADER_LEN, 'vmdk header')
  const version = head.u32le(4)
  if (version < 1 || version > 3) throw damaged(path, `vmdk of version ${version}`)
  if (head.u64le(12) === 0n) throw namesAnother(path, 'vmdk', 'extents (its capacity is 0)')
  const [at, sectors] = [head.u64le(28), head.u64le(36)]
  // QEMU does not open it without one.
  if (at === 0n) throw notRead(path, 'an extent of another vmdk (it has no descriptor)', CONVERT)
  if (sectors === 0n || sectors > BigInt(DESCRIPTOR_MAX / SECTOR))
    throw damaged(path, `a vmdk descriptor of ${sectors} sectors`)
  checkDescriptor(path, header.block(at * BigInt(SECTOR), Number(sectors) * SECTOR, 'vmdk descriptor'))
  if (header.size > USUAL_DESCRIPTOR) {
    const len = Math.min(USUAL_LEN, header.size - USUAL_DESCRIPTOR)
    checkParent(path, textOf(header.block(USUAL_DESCRIPTOR, len, 'vmdk descriptor')))
  }
  if (head.u64le(56) === AT_END) checkFooter(header)
}

function textOf(block: Block): string {
  const text = block.text(0, block.bytes.length)
  const end = text.indexOf('\0')
  return end === -1 ? text : text.slice(0, end)
}

function checkDescriptor(path: string, block: Block): void {
  const text = textOf(block)
  const type = /^[ \t]*createType[ \t]*=[ \t]*"?([^"\n\r]*)/im.exec(text)?.[1]?.trim()
  if (type !== undefined && !ONE_FILE.has(type.toLowerCase()))
    throw namesAnother(path, 'vmdk', `extents (createType ${type})`)
  checkParent(path, text)
  const extents = [...text.matchAll(/^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]+\S+[ \t]+(\S+)/gim)].map((match) => match[1]!)
  const other = extents.find((kind) => kind.toUpperCase() !== 'SPARSE')
  if (other !== undefined) throw namesAnother(path, 'vmdk', `an extent of type ${other}`)
  if (extents.length > 1) throw namesAnother(path, 'vmdk', `${extents.length} extents`)
}

function checkParent(path: string, text: string): void {
  if (/parentFileNameHint/i.test(text)) throw namesAnother(path, 'vmdk', 'a parent')
  const parent = /^[ \t]*parentCID[ \t]*=[ \t]*([0-9a-f]+)/im.exec(text)?.[1]
  if (parent !== undefined && !/^f{8}$/i.test(parent))
    throw namesAnother(path, 'vmdk', `a parent (parentCID ${parent})`)
}

/** streamOptimized: the footer repeats the header and takes precedence over it. */
function checkFooter(header: HeaderReader): void {
  const { path, size } = header
  const end = Math.floor(size / SECTOR) * SECTOR
  if (end < 4 * SECTOR) throw cutOff(path, 'vmdk footer', size)
  const footer = header.block(end - 2 * SECTOR, SECTOR, 'vmdk footer')
  if (footer.text(0, 4) !== 'KDMV') throw cutOff(path, 'vmdk footer', size)
  if (footer.u64le(12) === 0n) throw namesAnother(path, 'vmdk', 'extents (the capacity in its footer is 0)')
}
