import { closeSync, ftruncateSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Backings } from '../../../../src/device/attach/vfio-user/backing.ts'
import { createMemfd, inspectFile } from '../../../../src/ffi/mmap.ts'

const IDLE_MS = 40
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

test('an unused file is kept for a while, and given back after it', async () => {
  const fd = createMemfd('ram', true)
  ftruncateSync(fd, 8192)
  const backings = new Backings(IDLE_MS)
  const facts = inspectFile(fd)!
  const first = backings.acquire(fd, facts)
  const { bytes } = first.mapping.pieces(0, 8192)[0]!
  bytes[0] = 1
  backings.release(first)
  expect(backings.acquire(fd, facts)).toBe(first)
  await wait(2 * IDLE_MS) // the old timer must not take what is used again
  expect(bytes[0]).toBe(1)
  backings.acquire(fd, facts)
  backings.release(first)
  await wait(2 * IDLE_MS) // one user is left
  expect(bytes[0]).toBe(1)
  backings.release(first)
  expect(bytes[0]).toBe(1)
  await wait(3 * IDLE_MS)
  expect(bytes[0]).toBe(0)
  expect(backings.count).toBe(0)
  const second = backings.acquire(fd, facts)
  expect(second).not.toBe(first)
  expect(second.mapping.pieces(0, 8192)[0]!.bytes[0]).toBe(1)
  backings.close()
  closeSync(fd)
})

test('a file that has grown is mapped anew, what is used of the old mapping stays', () => {
  const fd = createMemfd('ram', true)
  ftruncateSync(fd, 4096)
  const backings = new Backings(IDLE_MS)
  const small = backings.acquire(fd, inspectFile(fd)!)
  ftruncateSync(fd, 8192)
  const large = backings.acquire(fd, inspectFile(fd)!)
  expect(large).not.toBe(small)
  large.mapping.pieces(0, 8192)[0]!.bytes[7] = 7
  expect(small.mapping.pieces(0, 4096)[0]!.bytes[7]).toBe(7)
  expect(backings.count).toBe(2)
  backings.close()
  closeSync(fd)
})
