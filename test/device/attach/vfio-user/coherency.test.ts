import { closeSync, ftruncateSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createMemfd, sealMemfd } from '../../../../src/ffi/mmap.ts'
import { openRig, openFds, until, type Rig } from './rig.ts'
import { access, concat, FakeVmm, u32, u64 } from '../../../support/fake-vmm.ts'

const MIB = 1 << 20

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

async function answerDmaRead(make: (address: number, count: number) => Buffer, errno = 0): Promise<void> {
  const ask = await vmm.next()
  expect(ask).toMatchObject({ command: 11, flags: 0 })
  const address = Number(ask!.payload.readBigUInt64LE(0))
  const count = Number(ask!.payload.readBigUInt64LE(8))
  const payload = errno ? Buffer.alloc(0) : make(address, count)
  const header = concat(u32(ask!.id | (11 << 16)), u32(16 + payload.length), u32(errno ? 0x21 : 1), u32(errno))
  await vmm.send(concat(header, payload))
}

test('the coherency test tells shared memory from private memory, and says when it does not know', async () => {
  const fd = ram(MIB)
  await vmm.mapMemory(0, MIB, fd)
  const { bytes } = rig.memory.regions[0]!
  bytes.set([1, 2, 3, 4, 5, 6, 7, 8], 4096)
  const same = rig.server.checkCoherent(4096, 8)
  await answerDmaRead((a, n) => concat(u64(a), u64(n), bytes.subarray(a, a + n)))
  expect(await same).toBe('same')

  const older = rig.server.checkCoherent(4096, 8) // QEMU 10.1: data 4 bytes earlier, message as long
  await answerDmaRead((a, n) => concat(u64(a), u32(n), bytes.subarray(a, a + n), u32(0)))
  expect(await older).toBe('same')

  const different = rig.server.checkCoherent(4096, 8)
  for (let i = 0; i < 3; i++) await answerDmaRead((a, n) => concat(u64(a), u64(n), Buffer.alloc(n, 9)))
  expect(await different).toBe('different')

  const zeros = rig.server.checkCoherent(8192, 8)
  await answerDmaRead((a, n) => concat(u64(a), u64(n), Buffer.alloc(n)))
  expect(await zeros).toBe('unknown')

  const refused = rig.server.checkCoherent(4096, 8)
  await answerDmaRead(() => Buffer.alloc(0), 19)
  expect(await refused).toBe('unknown')

  const short = rig.server.checkCoherent(4096, 8)
  await answerDmaRead((a, n) => concat(u64(a), u64(n), Buffer.alloc(3)))
  expect(await short).toBe('unknown')
  expect(await rig.server.checkCoherent(1 << 30, 8)).toBe('unknown')
})

test('a byte that the guest changes meanwhile does not make memory incoherent', async () => {
  await vmm.mapMemory(0, MIB, ram(MIB))
  const { bytes } = rig.memory.regions[0]!
  bytes.set([1, 2, 3, 4])
  const check = rig.server.checkCoherent(0, 4)
  await answerDmaRead((a, n) => {
    bytes[2] = 99
    return concat(u64(a), u64(n), bytes.subarray(0, 4))
  })
  expect(await check).toBe('same')
})

test('requests are answered while a question of ours is open, and its end is known when the VMM goes', async () => {
  await vmm.mapMemory(0, MIB, ram(MIB))
  const check = rig.server.checkCoherent(0, 64)
  expect(await vmm.next()).toMatchObject({ command: 11 })
  expect((await vmm.request(9, access(7, 0, 4))).errno).toBe(0)
  vmm.close()
  expect(await check).toBe('unknown')
})

test('questions are bounded, and stray replies only counted', async () => {
  await vmm.mapMemory(0, MIB, ram(MIB))
  const checks = Array.from({ length: 40 }, () => rig.server.checkCoherent(0, 64))
  const settled = Promise.race(checks.slice(16))
  expect(await settled).toBe('unknown')
  await vmm.send(concat(u32(0x7777 | (11 << 16)), u32(16), u32(1), u32(0)))
  await until(() => rig.server.counters?.strayReplies === 1, 'the stray reply to be counted')
  vmm.close()
  expect(new Set(await Promise.all(checks))).toEqual(new Set(['unknown']))
})
