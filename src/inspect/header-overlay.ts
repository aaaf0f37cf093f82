/**
 * The beginning of an image as it was checked, for QEMU to read in place of what the file has by then: whoever can
 * write to the file could change the header between our look and QEMU's. It is a qcow2 image whose first cluster is
 * that beginning and whose backing file is the image; QEMU's driver for the format reads through it. Called by
 * drive.ts.
 */

import { randomBytes } from 'node:crypto'
import { closeSync, fchmodSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { VmchannelError } from '../errors.ts'

const CLUSTER_BITS = 16
const CLUSTER: number = 1 << CLUSTER_BITS
const SECTOR = 512
const HEADER_LEN = 104
/** Reference counts are numbers of 16 bits. */
const REFCOUNT_ORDER = 4
/** Not shared with a snapshot; QEMU writes to such clusters in place. */
const COPIED = 1n << 63n

/** The overlay's file for an image of `size` bytes; `head` is one cluster, or all there is. */
export function headerOverlay(head: Uint8Array, size: number): Buffer {
  const disk = Math.ceil(size / SECTOR) * SECTOR
  // An entry of the first table stands for one cluster of the second.
  const entries = Math.ceil(disk / (CLUSTER * (CLUSTER / 8)))
  const l1Clusters = Math.ceil((entries * 8) / CLUSTER)
  const at = { refcounts: 1, counters: 2, l1: 3, l2: 3 + l1Clusters, data: 4 + l1Clusters }
  const image = Buffer.alloc((at.data + 1) * CLUSTER)
  image.write('QFI\xfb', 0, 'latin1')
  image.writeUInt32BE(3, 4)
  image.writeUInt32BE(CLUSTER_BITS, 20)
  image.writeBigUInt64BE(BigInt(disk), 24)
  image.writeUInt32BE(entries, 36)
  image.writeBigUInt64BE(BigInt(at.l1 * CLUSTER), 40)
  image.writeBigUInt64BE(BigInt(at.refcounts * CLUSTER), 48)
  image.writeUInt32BE(1, 56)
  image.writeUInt32BE(REFCOUNT_ORDER, 96)
  image.writeUInt32BE(HEADER_LEN, 100)
  image.writeBigUInt64BE(BigInt(at.counters * CLUSTER), at.refcounts * CLUSTER)
  for (let cluster = 0; cluster <= at.data; cluster++) image.writeUInt16BE(1, at.counters * CLUSTER + 2 * cluster)
  image.writeBigUInt64BE(BigInt(at.l2 * CLUSTER) | COPIED, at.l1 * CLUSTER)
  image.writeBigUInt64BE(BigInt(at.data * CLUSTER) | COPIED, at.l2 * CLUSTER)
  image.set(head.subarray(0, CLUSTER), at.data * CLUSTER)
  return image
}

/** A file that has no name any more, open for reading only. With mode 0444 any user may open it again by /dev/fd. */
export function nameless(content: Uint8Array, mode = 0o400): number {
  const path = join(tmpdir(), `vmchannel-${process.pid}-${randomBytes(6).toString('hex')}`)
  const opened: number[] = []
  try {
    const writer = openSync(path, 'wx', 0o600)
    opened.push(writer)
    try {
      opened.push(openSync(path, 'r'))
    } finally {
      unlinkSync(path)
    }
    for (let done = 0; done < content.length;) done += writeSync(writer, content, done)
    fchmodSync(writer, mode)
    return opened.pop()!
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `a temporary file cannot be made in ${tmpdir()}: ${code}`, {
      hint: 'free some space there, or set TMPDIR to another directory',
      cause,
    })
  } finally {
    for (const fd of opened) closeSync(fd)
  }
}
