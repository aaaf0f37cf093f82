/**
 * Small disk images of every format, whole as far as QEMU looks at them when it opens one, and images that name another
 * file, in every way that there is. Used by test/inspect and by the fuzz target `disk`.
 */

const SECTOR = 512
const CLUSTER = 64 << 10
/** Of the disks in them. */
export const DISK_SIZE: number = 1 << 20

export interface Qcow2Options {
  version?: 1 | 2 | 3
  backing?: string
  dataFile?: string
  /** A data file's name, without the feature bit that has it used. */
  dataFileName?: string
  features?: bigint
  crypt?: number
}

/** Nothing is allocated but the first cluster, at 0 of the data file where there is one. */
export function qcow2(options: Qcow2Options = {}): Buffer {
  const { version = 3, backing, dataFile, dataFileName = dataFile, features = 0n, crypt = 0 } = options
  const image = Buffer.alloc(6 * CLUSTER)
  image.write('QFI\xfb', 0, 'latin1')
  image.writeUInt32BE(version, 4)
  image.writeUInt32BE(16, 20)
  image.writeBigUInt64BE(BigInt(DISK_SIZE), 24)
  image.writeUInt32BE(crypt, 32)
  image.writeUInt32BE(1, 36) // L1 entries
  image.writeBigUInt64BE(BigInt(3 * CLUSTER), 40)
  image.writeBigUInt64BE(BigInt(CLUSTER), 48) // refcount table, block behind it
  image.writeUInt32BE(1, 56)
  let extension = 72
  if (version === 3) {
    image.writeBigUInt64BE(features | (dataFile === undefined ? 0n : 4n), 72)
    image.writeBigUInt64BE(dataFile === undefined ? 0n : 2n, 88) // the data file is raw
    image.writeUInt32BE(4, 96)
    image.writeUInt32BE(104, 100)
    extension = 104
  }
  if (dataFileName !== undefined) {
    image.writeUInt32BE(0x4441_5441, extension)
    image.writeUInt32BE(dataFileName.length, extension + 4)
    image.write(dataFileName, extension + 8)
  }
  if (backing !== undefined) {
    image.writeBigUInt64BE(2048n, 8)
    image.writeUInt32BE(backing.length, 16)
    image.write(backing, 2048)
  }
  image.writeBigUInt64BE(BigInt(2 * CLUSTER), CLUSTER)
  for (let cluster = 0; cluster < 6; cluster++) image.writeUInt16BE(1, 2 * CLUSTER + 2 * cluster)
  image.writeBigUInt64BE(BigInt(4 * CLUSTER) | (1n << 63n), 3 * CLUSTER)
  const data = backing === undefined ? BigInt(dataFile === undefined ? 5 * CLUSTER : 0) | (1n << 63n) : 0n
  image.writeBigUInt64BE(data, 4 * CLUSTER)
  image.write('own data', 5 * CLUSTER)
  return image
}

export interface VmdkOptions {
  capacity?: number
  createType?: string
  /** Lines of the descriptor. */
  extents?: string[]
  more?: string[]
  parentCid?: string
  /** Sector of the descriptor; 0: none. */
  descriptorAt?: number
  /** As streamOptimized has it; its capacity may be another. */
  footer?: { capacity: number }
}

export function vmdkDescriptor(options: VmdkOptions = {}): string {
  const { createType = 'monolithicSparse', extents = ['RW 2048 SPARSE "own.vmdk"'], more = [] } = options
  const head = ['# Disk DescriptorFile', 'version=1', 'CID=12345678', `parentCID=${options.parentCid ?? 'ffffffff'}`]
  return [...head, `createType="${createType}"`, ...more, '', '# Extent description', ...extents, ''].join('\n')
}

export function vmdk(options: VmdkOptions = {}): Buffer {
  const { capacity = DISK_SIZE / SECTOR, descriptorAt = 1, footer } = options
  const image = Buffer.alloc((footer ? 131 : 128) * SECTOR)
  const header = Buffer.alloc(SECTOR)
  header.write('KDMV', 0, 'latin1')
  header.writeUInt32LE(1, 4)
  header.writeUInt32LE(3, 8)
  header.writeBigUInt64LE(BigInt(capacity), 12)
  header.writeBigUInt64LE(128n, 20)
  header.writeBigUInt64LE(BigInt(descriptorAt), 28)
  header.writeBigUInt64LE(descriptorAt === 0 ? 0n : 20n, 36)
  header.writeUInt32LE(512, 44)
  header.writeBigUInt64LE(21n, 48)
  header.writeBigUInt64LE(22n, 56)
  header.writeBigUInt64LE(128n, 64)
  header.write('\n \r\n', 73, 'latin1')
  image.set(header, 0)
  if (descriptorAt !== 0) image.write(vmdkDescriptor(options), descriptorAt * SECTOR)
  for (const directory of [21, 22]) image.writeUInt32LE(24, directory * SECTOR) // one table, of zeros
  if (footer) {
    image.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 56)
    header.writeBigUInt64LE(BigInt(footer.capacity), 12)
    image.set(header, 129 * SECTOR)
    image.writeBigUInt64LE(1n, 128 * SECTOR) // the marker of a footer
    image.writeUInt32LE(3, 128 * SECTOR + 12)
  }
  return image
}

export function qed(backing?: string): Buffer {
  const image = Buffer.alloc(6 * CLUSTER)
  image.write('QED\0', 0, 'latin1')
  image.writeUInt32LE(CLUSTER, 4)
  image.writeUInt32LE(4, 8)
  image.writeUInt32LE(1, 12)
  image.writeBigUInt64LE(backing === undefined ? 0n : 5n, 16)
  image.writeBigUInt64LE(BigInt(CLUSTER), 40)
  image.writeBigUInt64LE(BigInt(DISK_SIZE), 48)
  if (backing !== undefined) {
    image.writeUInt32LE(512, 56)
    image.writeUInt32LE(backing.length, 60)
    image.write(backing, 512)
  }
  return image
}

/** `kind`: 1 dynamic, 2 fixed, 3 undo, 4 differencing. */
export function vdi({ kind = 1, parent = false }: { kind?: number; parent?: boolean } = {}): Buffer {
  const image = Buffer.alloc(0x400)
  image.write('<<< Oracle VM VirtualBox Disk Image >>>\n')
  image.writeUInt32LE(0xbeda107f, 0x40)
  image.writeUInt32LE(0x10001, 0x44)
  image.writeUInt32LE(0x190, 0x48)
  image.writeUInt32LE(kind, 0x4c)
  image.writeUInt32LE(0x200, 0x154)
  image.writeUInt32LE(0x400, 0x158)
  image.writeUInt32LE(SECTOR, 0x168)
  image.writeBigUInt64LE(BigInt(DISK_SIZE), 0x170)
  image.writeUInt32LE(1 << 20, 0x178)
  image.writeUInt32LE(1, 0x180)
  image.fill(0x11, 0x188, 0x198)
  if (parent) image.fill(0x22, 0x1b8, 0x1c8)
  image.writeUInt32LE(0xffff_ffff, 0x200)
  return image
}

/** `kind`: 3 dynamic, 4 differencing. */
export function vpc({ kind = 3, parent = false }: { kind?: number; parent?: boolean } = {}): Buffer {
  const image = Buffer.alloc(2560)
  const footer = Buffer.alloc(SECTOR)
  footer.write('conectix')
  footer.writeUInt32BE(2, 8)
  footer.writeUInt32BE(0x10000, 12)
  footer.writeBigUInt64BE(512n, 16)
  footer.writeBigUInt64BE(BigInt(DISK_SIZE), 40)
  footer.writeBigUInt64BE(BigInt(DISK_SIZE), 48)
  footer.set([0, 30, 4, 17], 56)
  footer.writeUInt32BE(kind, 60)
  footer.writeUInt32BE(sum(footer), 64)
  image.set(footer, 0)
  const dynamic = image.subarray(512, 1536)
  dynamic.write('cxsparse')
  dynamic.writeBigUInt64BE(0xffff_ffff_ffff_ffffn, 8)
  dynamic.writeBigUInt64BE(1536n, 16)
  dynamic.writeUInt32BE(0x10000, 24)
  dynamic.writeUInt32BE(1, 28)
  dynamic.writeUInt32BE(2 << 20, 32)
  if (parent) dynamic.fill(0x33, 40, 56)
  dynamic.writeUInt32BE(sum(dynamic), 36)
  image.fill(0xff, 1536, 2048)
  image.set(footer, 2048)
  return image
}

function sum(bytes: Buffer): number {
  return ~bytes.reduce((all, byte) => all + byte, 0) >>> 0
}

export function vhdx({ hasParent = false, locator = false }: { hasParent?: boolean; locator?: boolean } = {}): Buffer {
  const image = Buffer.alloc(2 << 20)
  image.write('vhdxfile')
  const table = image.subarray(192 << 10)
  table.write('regi')
  table.writeUInt32LE(1, 8)
  table.set(guid('8B7CA206-4790-4B9A-B8FE-575F050F886E'), 16)
  table.writeBigUInt64LE(BigInt(1 << 20), 32)
  table.writeUInt32LE(1 << 20, 40)
  table.writeUInt32LE(1, 44)
  const metadata = image.subarray(1 << 20)
  metadata.write('metadata')
  metadata.writeUInt16LE(locator ? 2 : 1, 10)
  metadata.set(guid('CAA16737-FA36-4D43-B3B6-33F0AA44E76B'), 32)
  metadata.writeUInt32LE(64 << 10, 48)
  metadata.writeUInt32LE(8, 52)
  metadata.writeUInt32LE(32 << 20, 64 << 10)
  metadata.writeUInt32LE(hasParent ? 2 : 0, (64 << 10) + 4)
  if (locator) metadata.set(guid('A8D35F2D-B30B-454D-ABF7-D3D84834AB0C'), 64)
  return image
}

function guid(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  bytes.subarray(0, 4).reverse()
  bytes.subarray(4, 6).reverse()
  bytes.subarray(6, 8).reverse()
  return bytes
}

/** Images that are fine, by format. */
export const WHOLE: Readonly<Record<string, () => Buffer>> = {
  'qcow2 of version 2': () => qcow2({ version: 2 }),
  'qcow2 of version 3': () => qcow2(),
  'vmdk, monolithicSparse': () => vmdk(),
  'vmdk, streamOptimized': () => vmdk({ createType: 'streamOptimized', footer: { capacity: DISK_SIZE / SECTOR } }),
  qed: () => qed(),
  vdi: () => vdi(),
  vpc: () => vpc(),
  vhdx: () => vhdx(),
}

export interface EvilDisk {
  name: string
  format: 'qcow2' | 'vmdk' | 'qed' | 'vdi' | 'vpc' | 'vhdx'
  bytes: Buffer
  /** QEMU reads the other file when it is given the image by its name and nothing else is said. */
  followed: boolean
}

/** `secret` is a raw disk, `parent` a VMDK whose CID is 12345678: absolute paths. */
export function evilDisks(secret: string, parent: string): EvilDisk[] {
  const flat = [`RW 2048 FLAT "${secret}" 0`]
  const vmfs = [`RW 2048 VMFS "${secret}"`]
  const evil = (name: string, format: EvilDisk['format'], bytes: Buffer | string, followed = false): EvilDisk => ({
    ...{ name, format, bytes: Buffer.from(bytes), followed },
  })
  const hint = [`parentFileNameHint="${parent}"`]
  const text = (createType: string, extents: string[]): string => vmdkDescriptor({ createType, extents }).padEnd(2048)
  const embedded = (createType: string, extents: string[], more: VmdkOptions = {}): Buffer =>
    vmdk({ createType, extents, capacity: 0, ...more })
  return [
    evil('qcow2-backing', 'qcow2', qcow2({ backing: secret }), true),
    evil('qcow2-backing-v2', 'qcow2', qcow2({ backing: secret, version: 2 }), true),
    evil('qcow2-backing-json', 'qcow2', qcow2({ backing: `json:{"driver":"file","filename":"${secret}"}` }), true),
    evil('qcow2-data-file', 'qcow2', qcow2({ dataFile: secret }), true),
    evil('qcow2-data-file-unused', 'qcow2', qcow2({ dataFileName: secret })),
    evil('qcow2-unknown-feature', 'qcow2', qcow2({ features: 1n << 40n })),
    evil('vmdk-text-flat', 'vmdk', text('monolithicFlat', flat), true),
    evil('vmdk-text-vmfs', 'vmdk', text('vmfs', vmfs), true),
    evil('vmdk-text-raw-device', 'vmdk', text('fullDevice', flat)),
    evil('vmdk-embedded-flat', 'vmdk', embedded('monolithicFlat', flat), true),
    evil('vmdk-embedded-vmfs', 'vmdk', embedded('vmfs', vmfs), true),
    evil(
      'vmdk-embedded-far',
      'vmdk',
      vmdkWithTwo(vmdkDescriptor(), { createType: 'monolithicFlat', extents: flat, capacity: 0 }),
      true,
    ),
    evil('vmdk-embedded-two', 'vmdk', embedded('twoGbMaxExtentFlat', [...flat, ...flat]), true),
    evil('vmdk-flat-with-capacity', 'vmdk', vmdk({ createType: 'monolithicFlat', extents: flat })),
    evil('vmdk-sparse-names-flat', 'vmdk', vmdk({ extents: flat })),
    evil('vmdk-parent', 'vmdk', vmdk({ more: hint, parentCid: '12345678' }), true),
    evil('vmdk-parent-elsewhere', 'vmdk', vmdkWithTwo(vmdkDescriptor({ more: hint, parentCid: '12345678' })), true),
    evil('vmdk-parent-cid', 'vmdk', vmdk({ parentCid: '12345678' })),
    evil('vmdk-footer', 'vmdk', vmdk({ createType: 'streamOptimized', footer: { capacity: 0 } })),
    evil('vmdk-cowd', 'vmdk', Buffer.concat([Buffer.from('COWD'), Buffer.alloc(4096)])),
    evil('vmdk-sesparse', 'vmdk', Buffer.concat([Buffer.from('bebafeca00000000', 'hex'), Buffer.alloc(4096)])),
    evil('qed-backing', 'qed', qed(secret), true),
    evil('vdi-differencing', 'vdi', vdi({ kind: 4 })),
    evil('vdi-parent', 'vdi', vdi({ parent: true })),
    evil('vpc-differencing', 'vpc', vpc({ kind: 4 })),
    evil('vpc-parent', 'vpc', vpc({ parent: true })),
    evil('vhdx-has-parent', 'vhdx', vhdx({ hasParent: true })),
    evil('vhdx-parent-locator', 'vhdx', vhdx({ locator: true })),
  ]
}

/** `usual` is where QEMU looks for a parent, whatever the header says of the place of the descriptor. */
function vmdkWithTwo(usual: string, options: VmdkOptions = {}): Buffer {
  const image = vmdk({ ...options, descriptorAt: 40 })
  image.write(usual, SECTOR)
  return image
}
