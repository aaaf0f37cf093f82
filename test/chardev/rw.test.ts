import { randomBytes } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { GONE, WOULD_BLOCK } from '../../src/chardev/chardev.ts'
import { addressOf } from '../../src/ffi/libc.ts'
import {
  goneErrno,
  hungUp,
  pollable,
  readableNow,
  readv,
  setNonBlocking,
  skim,
  unread,
  writev,
} from '../../src/ffi/rw.ts'
import { Iovec } from '../../src/mem/iovec.ts'
import { listOf, textList } from './tools.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync('/tmp/rw-')
})
afterAll(() => rmSync(dir, { recursive: true }))

const memory = new Uint8Array(1 << 20)
const base = Number(addressOf(memory))

/** Cuts `total` bytes of `bytes` into segments, each with or without an address. */
function segments(bytes: Uint8Array, address: number, cuts: readonly [number, boolean][]): Iovec {
  const list = new Iovec()
  let at = 0
  for (const [len, native] of cuts) {
    if (native) list.push(bytes, at, len, address + at)
    else list.push(Uint8Array.from(bytes.subarray(at, at + len)), 0, len, 0)
    at += len
  }
  return list
}

test('what is written is read back, whatever the segments are', () => {
  const cut = fc.tuple(fc.integer({ min: 1, max: 3000 }), fc.boolean())
  fc.assert(
    fc.property(
      fc.array(cut, { minLength: 1, maxLength: 40 }),
      fc.array(cut, { minLength: 1, maxLength: 40 }),
      (out, into) => {
        memory.set(randomBytes(120_000))
        const expected = Buffer.from(memory.subarray(0, 120_000))
        const path = join(dir, 'f')
        let fd = openSync(path, 'w')
        const list = segments(memory, base, out)
        expect(writev(fd, list)).toBe(list.total)
        closeSync(fd)
        expect(readFileSync(path).equals(expected.subarray(0, list.total))).toBe(true)
        fd = openSync(path, 'r')
        memory.fill(0)
        const target = segments(memory, base, into)
        const done = readv(fd, target)
        closeSync(fd)
        expect(done).toBe(Math.min(list.total, target.total))
        const got = Buffer.alloc(done)
        target.copyTo(got)
        expect(got.equals(expected.subarray(0, done))).toBe(true)
      },
    ),
    { numRuns: 200 },
  )
})

test('1024 segments; more plain bytes than the bounce buffer holds are a short write, in order', () => {
  const path = join(dir, 'big')
  const fd = openSync(path, 'w')
  const list = new Iovec()
  for (let i = 0; i < 1024; i++) list.push(memory, i * 8, 8, i % 2 ? base + i * 8 : 0)
  expect(writev(fd, list)).toBe(8192)
  const plain = randomBytes(600_000)
  const cut = listOf(plain.subarray(0, 200_000), plain.subarray(200_000))
  const done = writev(fd, cut)
  expect(done).toBe(256 * 1024)
  closeSync(fd)
  expect(readFileSync(path).subarray(8192).equals(plain.subarray(0, done))).toBe(true)
})

test('end of file, errors, and nothing to do', () => {
  writeFileSync(join(dir, 'empty'), '')
  const empty = openSync(join(dir, 'empty'), 'r')
  expect(readv(empty, textList('    '))).toBe(GONE)
  expect(goneErrno()).toBe(0)
  expect(writev(empty, textList('x'))).toBe(GONE)
  expect(goneErrno()).toBe(9) // EBADF
  expect(writev(empty, new Iovec())).toBe(0)
  closeSync(empty)
})

test('what the helpers see of a pty and of files', () => {
  const fd = openSync('/dev/ptmx', 'r+')
  setNonBlocking(fd)
  expect(setNonBlocking(fd)).toBe(false)
  expect(readv(fd, textList('    '))).toBe(WOULD_BLOCK)
  expect([pollable(fd), hungUp(fd), readableNow(fd), unread(fd), skim(fd, 10)]).toEqual([true, false, false, 0, 0])
  closeSync(fd)
  const file = openSync(join(dir, 'empty'), 'r')
  expect(pollable(file)).toBe(false)
  closeSync(file)
  const nothing = openSync('/dev/null', 'r')
  expect(pollable(nothing)).toBe(false)
  closeSync(nothing)
})
