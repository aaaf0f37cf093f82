import { closeSync, ftruncateSync, openSync, readSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createMemfd, sealMemfd, WINDOW_OVERLAP, WINDOW_SIZE } from '../../../../src/ffi/mmap.ts'
import { Iovec } from '../../../../src/mem/iovec.ts'
import { openRig, openFds, type Rig } from './rig.ts'
import { concat, FakeVmm, u32, u64 } from '../../../support/fake-vmm.ts'

const MIB = 1 << 20
const EINVAL = 22
const EEXIST = 17

let rig: Rig
let vmm: FakeVmm
let before: string[]
const files: number[] = []

beforeEach(async () => {
  rig = await openRig()
  before = openFds()
  vmm = await FakeVmm.attach(rig.path)
})
afterEach(async () => {
  for (const fd of files.splice(0)) closeSync(fd)
  vmm.close()
  await rig.detached()
  expect(openFds()).toEqual(before)
  expect(rig.memory.regions).toEqual([])
  rig.end()
})

function ram(size: number): number {
  const fd = createMemfd('ram', true)
  ftruncateSync(fd, size)
  sealMemfd(fd)
  files.push(fd)
  return fd
}

function byteOf(fd: number, at: number): number {
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, at)
  return byte[0]!
}

test('mapped memory is the memory of the VMM, at the right offset', async () => {
  const fd = ram(4 * MIB)
  expect(await vmm.mapMemory(0x10_0000, MIB, fd, MIB)).toBe(0)
  const region = rig.memory.contiguous(0x10_0000 + 4096, 4, true)
  region.bytes[4096] = 42
  expect(byteOf(fd, MIB + 4096)).toBe(42)
  expect(region.address).toBeGreaterThan(0)
  expect(rig.memory.region(0x10_0000 + MIB)).toBeUndefined()
})

test('maps of one file share one mapping, whatever is taken away and brought back', async () => {
  const fd = ram(4 * MIB)
  expect(await vmm.mapMemory(0, 2 * MIB, fd)).toBe(0)
  const { buffer } = rig.memory.regions[0]!.bytes
  expect(await vmm.mapMemory(1 << 30, MIB, fd, 3 * MIB)).toBe(0)
  expect(rig.memory.regions[1]!.bytes.buffer).toBe(buffer)
  expect(await vmm.unmapMemory(0, 2 * MIB)).toBe(0)
  expect(await vmm.unmapMemory(1 << 30, MIB)).toBe(0)
  expect(rig.memory.regions).toEqual([])
  expect(await vmm.mapMemory(0, 4 * MIB, fd)).toBe(0)
  expect(rig.memory.regions[0]!.bytes.buffer).toBe(buffer)
})

test('a VM of several gigabytes is cut into windows, and a list crosses their borders', async () => {
  const fd = ram(3 * WINDOW_SIZE)
  expect(await vmm.mapMemory(4 * WINDOW_SIZE, 3 * WINDOW_SIZE, fd)).toBe(0)
  expect(rig.memory.regions.length).toBeGreaterThan(2)
  const border = 4 * WINDOW_SIZE + WINDOW_SIZE - WINDOW_OVERLAP
  // one piece near the border: the window overlaps the next
  expect(rig.memory.contiguous(border - 16, 65536, true).base).toBe(4 * WINDOW_SIZE)
  const list = new Iovec()
  expect(rig.memory.append(list, border - 16, 4 * MIB, true)).toBe(4 * MIB)
  list.copyFrom(new Uint8Array(4 * MIB).fill(7))
  const from = WINDOW_SIZE - WINDOW_OVERLAP - 16
  expect([byteOf(fd, from - 1), byteOf(fd, from), byteOf(fd, from + 4 * MIB - 1), byteOf(fd, from + 4 * MIB)]).toEqual([
    0, 7, 7, 0,
  ])
  expect(await vmm.unmapMemory(4 * WINDOW_SIZE, 3 * WINDOW_SIZE)).toBe(0)
  expect(rig.memory.regions).toEqual([])
})

test('read-only maps are read-only', async () => {
  const fd = ram(MIB)
  expect(await vmm.mapMemory(0, MIB, fd, 0, 1)).toBe(0)
  expect(() => rig.memory.contiguous(0, 4, true)).toThrow(/read-only/)
  expect(rig.memory.contiguous(0, 4, false).writable).toBe(false)
})

test('a file that was opened for reading is mapped for reading only', async () => {
  const fd = ram(MIB)
  const reader = openSync(`/proc/self/fd/${fd}`, 'r')
  files.push(reader)
  expect(await vmm.mapMemory(0, MIB, reader, 0, 3)).toBe(EINVAL)
  expect(await vmm.mapMemory(0, MIB, reader, 0, 1)).toBe(0)
  expect(rig.memory.regions).toHaveLength(1)
})

test('the same map again is no error; anything else that overlaps is', async () => {
  const fd = ram(4 * MIB)
  expect(await vmm.mapMemory(MIB, MIB, fd)).toBe(0)
  expect(await vmm.mapMemory(MIB, MIB, fd)).toBe(0)
  expect(await vmm.mapMemory(MIB, MIB, fd, MIB)).toBe(EEXIST)
  expect(await vmm.mapMemory(MIB, MIB, fd, 0, 1)).toBe(EEXIST)
  expect(await vmm.mapMemory(MIB, MIB, undefined)).toBe(EEXIST)
  expect(await vmm.mapMemory(0, 4 * MIB, fd)).toBe(EEXIST)
  expect(await vmm.mapMemory(MIB + 4096, 4096, fd)).toBe(EEXIST)
  expect(await vmm.mapMemory(2 * MIB - 4096, MIB, fd)).toBe(EEXIST)
  expect(await vmm.mapMemory(0, MIB, fd)).toBe(0)
  expect(await vmm.mapMemory(2 * MIB, MIB, fd)).toBe(0)
  expect(rig.memory.regions).toHaveLength(3)
})

test('unmap takes whole maps, all that are in its range: one, many, or none', async () => {
  const fd = ram(4 * MIB)
  expect(await vmm.mapMemory(0, 2 * MIB, fd)).toBe(0)
  expect(await vmm.unmapMemory(0, MIB)).toBe(EINVAL)
  expect(await vmm.unmapMemory(4096, 2 * MIB - 4096)).toBe(EINVAL)
  expect(await vmm.unmapMemory(4096, 4096)).toBe(EINVAL)
  expect(await vmm.unmapMemory(0, 0)).toBe(EINVAL)
  expect(await vmm.unmapMemory(0, 2 * MIB, 1)).toBe(EINVAL)
  // What a virtual IOMMU says when it is turned on: halves of its address space, whatever is there.
  expect(await vmm.unmapMemory(8 * MIB, 2 ** 47)).toBe(0)
  expect(rig.memory.regions).toHaveLength(1)
  for (const at of [4, 6, 7]) expect(await vmm.mapMemory(at * MIB, 4096, fd, at * 4096)).toBe(0)
  expect(await vmm.mapMemory(9 * MIB, 4096, undefined)).toBe(0)
  expect(await vmm.unmapMemory(5 * MIB, 8 * MIB)).toBe(0)
  expect(rig.memory.regions.map(({ base }) => base)).toEqual([0, 4 * MIB])
  expect(await vmm.mapMemory(6 * MIB, MIB, fd, MIB)).toBe(0)
  expect(await vmm.unmapMemory(4 * MIB, 4 * MIB)).toBe(0)
  expect(rig.memory.regions).toHaveLength(1)
  const reply = await vmm.request(3, concat(u32(24), u32(0), u64(0), u64(2 * MIB)))
  expect(reply.payload).toEqual(concat(u32(24), u32(0), u64(0), u64(2 * MIB)))
  expect(await vmm.unmapMemory(0, 2 * MIB)).toBe(0)
})

test('unmap all', async () => {
  const fd = ram(4 * MIB)
  for (let i = 0; i < 4; i++) expect(await vmm.mapMemory(2 * i * MIB, MIB, fd, i * MIB)).toBe(0)
  expect(await vmm.unmapMemory(4096, 0, 2)).toBe(EINVAL)
  expect(rig.memory.regions).toHaveLength(4)
  expect(await vmm.unmapMemory(0, 0, 2)).toBe(0)
  expect(rig.memory.regions).toEqual([])
})

test('E3: what cannot be is refused: wrap, short file, odd pages, no flags, too many or strange descriptors', async () => {
  const fd = ram(MIB)
  const bad: [number | bigint, number | bigint, number | bigint, number][] = [
    [0xffff_ffff_ffff_f000n, 0x2000, 0, 3], // wraps at 2^64
    [2 ** 53 - 4096, 8192, 0, 3],
    [0, 0xffff_ffff_ffff_f000n, 0x1000, 3],
    [0, 0, 0, 3],
    [0, 2 * MIB, 0, 3], // longer than the file
    [0, MIB, 4096, 3],
    [0, 4096, 0xffff_ffff_ffff_f000n, 3],
    [1, 4096, 0, 3],
    [0, 4097, 0, 3],
    [0, 4096, 16, 3],
    [0, 4096, 0, 0],
  ]
  for (const [iova, size, offset, flags] of bad) {
    const payload = concat(u32(32), u32(flags), u64(offset), u64(iova), u64(size))
    expect(await vmm.errno(2, payload, [fd])).toBe(EINVAL)
  }
  const good = concat(u32(32), u32(3), u64(0), u64(0), u64(MIB))
  expect(await vmm.errno(2, good, [fd, fd])).toBe(EINVAL)
  expect(await vmm.errno(2, good.subarray(0, 31), [fd])).toBe(EINVAL)
  expect(await vmm.errno(2, concat(good, u32(0)), [fd])).toBe(EINVAL)
  expect(await vmm.errno(2, concat(u32(31), good.subarray(4)), [fd])).toBe(EINVAL)
  const folder = openSync('/', 'r')
  files.push(folder)
  expect(await vmm.mapMemory(0, MIB, folder)).toBe(EINVAL)
  expect(rig.memory.regions).toEqual([])
  // unknown flag bits are somebody's newer protocol
  expect(await vmm.mapMemory(0, MIB, fd, 0, 0xf)).toBe(0)
})

test('E3: thousands of maps are bounded and cheap to take away', async () => {
  const fd = ram(4096)
  const count = 5000
  for (let i = 0; i < count; i++) expect(await vmm.mapMemory(i * 8192, 4096, fd)).toBe(0)
  expect(rig.memory.regions).toHaveLength(count)
  for (let i = 0; i < count; i += 2) expect(await vmm.unmapMemory(i * 8192, 4096)).toBe(0)
  expect(rig.memory.regions).toHaveLength(count / 2)
})

test('E3: a mapping of terabytes makes no view before it is touched, and is bounded', async () => {
  const fd = ram(2 ** 40)
  const before = process.memoryUsage().external
  expect(await vmm.mapMemory(0, 2 ** 40, fd)).toBe(0)
  expect(rig.memory.regions.length).toBeGreaterThan(1000)
  expect(process.memoryUsage().external - before).toBeLessThan(2 ** 28)
  const last = rig.memory.region(2 ** 40 - 1)!
  last.bytes[2 ** 40 - 1 - last.base] = 9
  expect(byteOf(fd, 2 ** 40 - 1)).toBe(9)
  const huge = ram(2 ** 44 + 4096)
  expect(await vmm.mapMemory(2 ** 45, 2 ** 44 + 4096, huge)).toBe(EINVAL)
})

test('E3: one message that takes many mappings away looks at each once', async () => {
  const fd = ram(4096)
  let changes = 0
  rig.memory.onChange(() => changes++)
  for (let i = 0; i < 1000; i++) expect(await vmm.mapMemory(i * 8192, 4096, fd)).toBe(0)
  expect(await vmm.unmapMemory(8192, 998 * 8192)).toBe(0)
  expect(changes).toBe(1001)
  expect(rig.memory.regions.map((r) => r.base)).toEqual([0, 999 * 8192])
})

test('E3: the number of files is bounded, and files that nobody uses make room', async () => {
  const ENOMEM = 12
  const round = async (first: number): Promise<number> => {
    for (let i = 0; i < 600; i++) {
      const fd = createMemfd('ram', true)
      ftruncateSync(fd, 4096)
      const result = await vmm.mapMemory(first + i * 4096, 4096, fd)
      closeSync(fd)
      if (result === ENOMEM) return i
      expect(result).toBe(0)
    }
    return 600
  }
  expect(await round(0)).toBe(512)
  expect(await vmm.unmapMemory(0, 0, 2)).toBe(0)
  expect(await round(2 ** 30)).toBe(512)
  for (let i = 0; i < 20; i++) expect(await round(2 ** 31)).toBe(0)
  expect(rig.lines.filter((l) => l.startsWith('warn')).length).toBeLessThanOrEqual(8)
})

test('E3: unmapping while somebody holds a view harms nobody', async () => {
  const fd = ram(MIB)
  await vmm.mapMemory(0, MIB, fd)
  const { bytes } = rig.memory.regions[0]!
  let changes = 0
  rig.memory.onChange(() => changes++)
  bytes[0] = 1
  expect(await vmm.unmapMemory(0, MIB)).toBe(0)
  expect(changes).toBe(1)
  expect(bytes[0]).toBe(1) // still mapped for a while
  vmm.close()
  await rig.detached()
  expect(bytes[0]).toBe(0) // and now nobody's
  bytes[0] = 3
  expect(byteOf(fd, 0)).toBe(1)
})

test('guest RAM without a descriptor is noticed before the guest runs, once', async () => {
  expect(await vmm.mapMemory(0, 256 * MIB, undefined)).toBe(0)
  expect(await vmm.mapMemory(0xfffc_0000, 0x4_0000, undefined, 0, 1)).toBe(0)
  expect(rig.unshared).toEqual([])
  await vmm.request(4, concat(u32(16), u32(0), u32(0), u32(0)))
  await vmm.request(4, concat(u32(16), u32(0), u32(0), u32(0)))
  expect(rig.unshared).toEqual([{ address: 0, size: 256 * MIB }])
  expect(rig.server.unsharedAt(0x1234)).toEqual({ address: 0, size: 256 * MIB })
  expect(rig.server.unsharedAt(256 * MIB)).toBeUndefined()
  expect(rig.memory.regions).toEqual([])
  expect(await vmm.unmapMemory(0, 256 * MIB)).toBe(0)
  expect(rig.server.unsharedAt(0x1234)).toBeUndefined()
})

test('a VMM that maps its memory after asking about the device is told too', async () => {
  await vmm.request(4, concat(u32(16), u32(0), u32(0), u32(0)))
  expect(await vmm.mapMemory(0, 256 * MIB, undefined)).toBe(0)
  expect(rig.unshared).toEqual([])
  expect(await vmm.setIrqs(0x21, 2, 0, 0)).toBe(0)
  expect(rig.unshared).toHaveLength(1)
})

test('video memory and firmware without descriptors are nothing to complain about', async () => {
  expect(await vmm.mapMemory(0, 16 * MIB, ram(16 * MIB))).toBe(0)
  expect(await vmm.mapMemory(0xfd00_0000, 16 * MIB, undefined)).toBe(0)
  expect(await vmm.mapMemory(0xfffc_0000, 0x4_0000, undefined, 0, 1)).toBe(0)
  await vmm.request(4, concat(u32(16), u32(0), u32(0), u32(0)))
  expect(rig.unshared).toEqual([])
  expect(rig.server.unsharedAt(0xfd00_0000)).toEqual({ address: 0xfd00_0000, size: 16 * MIB })
  expect(rig.server.unsharedAt(0)).toBeUndefined()
})

test('E3: memory that somebody else answers for is refused, and the log names its file system', async () => {
  const fd = openSync('/sys/kernel/mm/transparent_hugepage/enabled', 'r')
  files.push(fd)
  expect(await vmm.mapMemory(0, 4096, fd, 0, 1)).toBe(EINVAL)
  expect(rig.lines.filter((line) => line.includes('its file is on sysfs'))).toHaveLength(1)
  expect(rig.memory.regions).toEqual([])
})
