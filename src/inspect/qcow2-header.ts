/** qcow2: which files an image needs besides itself, by its header (QEMU's docs/interop/qcow2). */

import { cutOff, damaged, encrypted, namesAnother, notRead } from './disk-errors.ts'
import type { Block, HeaderReader } from './header-reader.ts'

const VERSION_2_LEN = 72
const VERSION_3_LEN = 104
const FEATURE = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n } as const
const KNOWN = Object.values(FEATURE).reduce((all, bit) => all | bit, 0n)
const EXTENSION = { end: 0, crypto: 0x0537_be77, dataFile: 0x4441_5441 } as const
/** No image has more: each kind comes once. */
const EXTENSIONS_MAX = 64

export function checkQcow2(header: HeaderReader): void {
  const { path } = header
  const what = 'qcow2 header'
  const start = header.block(0, 8, what)
  const version = start.u32be(4)
  if (version === 1) throw notRead(path, 'qcow of version 1', 'qemu-img convert -f qcow -O qcow2 IMAGE NEW.qcow2')
  if (version !== 2 && version !== 3) throw damaged(path, `qcow2 of version ${version}`)
  const head = header.block(0, version === 2 ? VERSION_2_LEN : VERSION_3_LEN, what)
  const clusterBits = head.u32be(20)
  if (clusterBits < 9 || clusterBits > 21) throw damaged(path, `qcow2 with clusters of 2^${clusterBits} bytes`)
  if (head.u32be(32) !== 0) throw encrypted(path, 'the qcow2 image')
  if (head.u64be(8) !== 0n || head.u32be(16) !== 0) throw namesAnother(path, 'qcow2', 'a backing file')
  if (version === 3) checkFeatures(path, head.u64be(72))
  const len = version === 2 ? VERSION_2_LEN : head.u32be(100)
  const cluster = 1 << clusterBits
  if (len < head.bytes.length && version === 3) throw damaged(path, `a qcow2 header of ${len} bytes`)
  if (len > cluster) throw damaged(path, `a qcow2 header of ${len} bytes in a cluster of ${cluster}`)
  if (header.size < len) throw cutOff(path, what, header.size)
  checkExtensions(path, header.block(0, Math.min(cluster, header.size), what), len)
}

function checkFeatures(path: string, features: bigint): void {
  if ((features & FEATURE.dataFile) !== 0n) throw namesAnother(path, 'qcow2', 'a data file')
  if ((features & FEATURE.corrupt) !== 0n) throw damaged(path, 'its qcow2 header says that it is corrupt')
  const strange = features & ~KNOWN
  if (strange === 0n) return
  throw notRead(path, `qcow2 with incompatible features 0x${strange.toString(16)}`, 'qemu-img convert -O qcow2')
}

/** From the end of the header on, within the first cluster. Unknown ones are to be ignored, and name nothing. */
function checkExtensions(path: string, cluster: Block, from: number): void {
  let at = from
  for (let count = 0; at + 8 <= cluster.bytes.length; count++) {
    const type = cluster.u32be(at)
    if (type === EXTENSION.end) return
    if (type === EXTENSION.dataFile) throw namesAnother(path, 'qcow2', 'the name of a data file')
    if (type === EXTENSION.crypto) throw encrypted(path, 'the qcow2 image')
    if (count === EXTENSIONS_MAX) throw damaged(path, `more than ${EXTENSIONS_MAX} extensions of its qcow2 header`)
    const len = cluster.u32be(at + 4)
    if (len > cluster.bytes.length - at - 8) throw damaged(path, `an extension of its qcow2 header of ${len} bytes`)
    at += 8 + Math.ceil(len / 8) * 8
  }
}
