/** QED, VDI and VPC (VHD): whether an image is of a kind that needs no other file. Each has one short header. */

import { damaged, namesAnother, notRead } from './disk-errors.ts'
import type { HeaderReader } from './header-reader.ts'

/** QEMU's docs/interop/qed_spec: bit 0 has a backing file, bit 1 wants a check, bit 2 is about the backing file. */
export function checkQed(header: HeaderReader): void {
  const { path } = header
  const head = header.block(0, 64, 'qed header')
  const features = head.u64le(16)
  if ((features & 5n) !== 0n || head.u32le(60) !== 0) throw namesAnother(path, 'qed', 'a backing file')
  if ((features & ~2n) !== 0n)
    throw notRead(path, `qed with features 0x${features.toString(16)}`, 'qemu-img convert -f qed -O qcow2')
}

const VDI_KINDS: ReadonlyMap<number, string> = new Map([
  [1, 'dynamic'],
  [2, 'fixed'],
])
const VDI_LEN = 0x1c8

export function checkVdi(header: HeaderReader): void {
  const { path } = header
  const head = header.block(0, VDI_LEN, 'vdi header')
  const kind = head.u32le(0x4c)
  if (kind === 3 || kind === 4) throw namesAnother(path, 'vdi', 'a parent (it is differencing)')
  if (!VDI_KINDS.has(kind)) throw damaged(path, `vdi of kind ${kind}`)
  if (!head.isZero(0x1a8, 16) || !head.isZero(0x1b8, 16)) throw namesAnother(path, 'vdi', 'a parent (by its UUID)')
}

const VPC_KIND = { fixed: 2, dynamic: 3, differencing: 4 } as const
const VPC_FOOTER_LEN = 512
const VPC_DYNAMIC_LEN = 1024
const VPC_DYNAMIC = 'cxsparse'

/** A dynamic image begins with a copy of its footer; a fixed one has the footer alone. */
export function checkVpc(header: HeaderReader): void {
  const { path } = header
  const atStart = header.has(0, 'conectix')
  const footer = header.block(atStart ? 0 : header.size - VPC_FOOTER_LEN, VPC_FOOTER_LEN, 'vpc footer')
  const kind = footer.u32be(60)
  if (kind === VPC_KIND.differencing) throw namesAnother(path, 'vpc', 'a parent (it is differencing)')
  if (kind !== (atStart ? VPC_KIND.dynamic : VPC_KIND.fixed)) throw damaged(path, `vpc of kind ${kind}`)
  if (!atStart) return
  const dynamic = header.block(footer.u64be(16), VPC_DYNAMIC_LEN, 'vpc header')
  if (dynamic.text(0, 8) !== VPC_DYNAMIC) throw damaged(path, 'its vpc header has no signature')
  // The parent's identifier, and the first of its eight locators.
  if (!dynamic.isZero(40, 16) || !dynamic.isZero(576, 24)) throw namesAnother(path, 'vpc', 'a parent')
}

/** The footer of a fixed image, which looks like a raw one otherwise. */
export function hasVpcFooter(header: HeaderReader): boolean {
  return header.has(header.size - VPC_FOOTER_LEN, 'conectix')
}
