import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { createMemfd, inspectFile, sealMemfd, SharedMapping, WINDOW_OVERLAP, WINDOW_SIZE } from '../../src/ffi/mmap.ts'

function memfd(size: number, sealed = false): number {
  const fd = createMemfd('vmchannel-test', true)
  ftruncateSync(fd, size)
  if (sealed) sealMemfd(fd)
  return fd
}

/** The line of /proc/self/maps that starts at an address. */
function mapsLine(address: number): string | undefined {
  return readFileSync('/proc/self/maps', 'latin1')
    .split('\n')
    .find((line) => line.startsWith(`${address.toString(16)}-`))
}

test('the file and the mapping are the same bytes, after the descriptor is closed too', () => {
  const fd = memfd(65536)
  const twin = openSync(`/proc/self/fd/${fd}`, 'r+')
  const mapping = new SharedMapping(fd, 65536, true)
  closeSync(fd)
  const [piece, ...others] = mapping.pieces(4096, 8192)
  expect(others).toEqual([])
  expect(piece).toMatchObject({ offset: 4096, size: 8192, address: mapping.address + 4096 })
  writeSync(twin, Buffer.from('from the file'), 0, 13, 4096)
  expect(Buffer.from(piece!.bytes.subarray(0, 13)).toString()).toBe('from the file')
  piece!.bytes.set(Buffer.from('from the map!'))
  const back = Buffer.alloc(13)
  readSync(twin, back, 0, 13, 4096)
  expect(back.toString()).toBe('from the map!')
  mapping.drop()
  closeSync(twin)
})

test('a file of more than one window is cut into pieces that overlap', () => {
  const size = 3 * WINDOW_SIZE
  const stride = WINDOW_SIZE - WINDOW_OVERLAP
  const fd = memfd(size)
  const mapping = new SharedMapping(fd, size, true)
  const pieces = mapping.pieces(0, size)
  expect(pieces.map((p) => p.offset)).toEqual([0, stride, 2 * stride, 3 * stride].filter((at) => at < size))
  expect(pieces.reduce((sum, p) => sum + p.size, 0)).toBe(size)
  for (const p of pieces.slice(0, -1)) expect(p.bytes.length - p.size).toBe(WINDOW_OVERLAP)
  expect(pieces.every((p) => p.bytes.length <= WINDOW_SIZE)).toBe(true)
  // the same byte through two windows, and through the file
  pieces[0]!.bytes[stride + 5] = 77
  expect(pieces[1]!.bytes[5]).toBe(77)
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, stride + 5)
  expect(byte[0]).toBe(77)
  // a range that crosses a border, and ends before the overlap does
  const across = mapping.pieces(stride - 4096, 8192)
  expect(across.map((p) => [p.offset, p.size, p.bytes.length])).toEqual([
    [stride - 4096, 4096, 8192],
    [stride, 4096, 4096],
  ])
  // windows are made once
  expect(mapping.pieces(0, 4096)[0]!.bytes.buffer).toBe(pieces[0]!.bytes.buffer)
  mapping.drop()
  closeSync(fd)
})

test('pieces cover every range without a gap, whatever its place', () => {
  const size = 2 * WINDOW_SIZE + 12288
  const fd = memfd(size)
  const mapping = new SharedMapping(fd, size, true)
  const stride = WINDOW_SIZE - WINDOW_OVERLAP
  const borders = [0, 4096, stride - 4096, stride, WINDOW_SIZE - 4096, WINDOW_SIZE, 2 * stride, 2 * stride + 4096, size]
  for (const from of borders)
    for (const to of borders.filter((b) => b > from)) {
      let at = from
      for (const piece of mapping.pieces(from, to - from)) {
        expect(piece.offset).toBe(at)
        expect(piece.address).toBe(mapping.address + at)
        expect(piece.bytes.length).toBeGreaterThanOrEqual(piece.size)
        expect(at + piece.bytes.length).toBeLessThanOrEqual(to)
        at += piece.size
      }
      expect(at).toBe(to)
    }
  expect(() => mapping.pieces(0, size + 1)).toThrow(RangeError)
  expect(() => mapping.pieces(-1, 10)).toThrow(RangeError)
  expect(() => mapping.pieces(0, 0)).toThrow(RangeError)
  mapping.drop()
  closeSync(fd)
})

test('a live view of dropped memory reads zeros, and writes reach nobody', () => {
  const fd = memfd(8192)
  const mapping = new SharedMapping(fd, 8192, true)
  const { bytes } = mapping.pieces(0, 8192)[0]!
  bytes[100] = 9
  mapping.drop()
  mapping.drop()
  expect(bytes[100]).toBe(0)
  bytes[100] = 5
  const back = Buffer.alloc(1)
  readSync(fd, back, 0, 1, 100)
  expect(back[0]).toBe(9)
  expect(() => mapping.pieces(0, 4096)).toThrow(RangeError)
  expect(mapsLine(mapping.address)).not.toContain('memfd')
  closeSync(fd)
})

test('the addresses are given back when the last view is collected, and no sooner', async () => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const fd = memfd(64 << 20)
  const mapping = new SharedMapping(fd, 64 << 20, true)
  let view: Uint8Array | undefined = mapping.pieces(0, 4096)[0]!.bytes
  mapping.drop()
  for (let i = 0; i < 5; i++) {
    gc()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  expect(mapsLine(mapping.address)).toBeDefined()
  expect(view[0]).toBe(0)
  view = undefined
  for (let i = 0; i < 50 && mapsLine(mapping.address); i++) {
    gc()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  expect(mapsLine(mapping.address)).toBeUndefined()
  closeSync(fd)
})

test('guest memory stays out of core dumps and of children', () => {
  const fd = memfd(16384)
  const mapping = new SharedMapping(fd, 16384, true)
  const smaps = readFileSync('/proc/self/smaps', 'latin1')
  const flags = /VmFlags: (.*)/.exec(smaps.slice(smaps.indexOf(`${mapping.address.toString(16)}-`)))?.[1]?.split(' ')
  expect(flags).toContain('dd')
  expect(flags).toContain('dc')
  mapping.drop()
  closeSync(fd)
})

test('says what a descriptor is', () => {
  const plain = memfd(4096)
  const sealed = memfd(8192, true)
  const twin = openSync(`/proc/self/fd/${plain}`, 'r')
  expect(inspectFile(plain)).toMatchObject({ regular: true, size: 4096, writable: true, sealed: false })
  expect(inspectFile(sealed)).toMatchObject({ regular: true, size: 8192, writable: true, sealed: true })
  expect(inspectFile(twin)).toMatchObject({ regular: true, writable: false })
  expect(inspectFile(twin)!.identity).toBe(inspectFile(plain)!.identity)
  expect(inspectFile(plain)!.identity).not.toBe(inspectFile(sealed)!.identity)
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-mmap-'))
  const directory = openSync(folder, 'r')
  expect(inspectFile(directory)!.regular).toBe(false)
  expect(inspectFile(99_999)).toBeUndefined()
  expect(() => ftruncateSync(sealed, 4096)).toThrow(/EPERM/)
  expect(fstatSync(sealed).size).toBe(8192)
  for (const fd of [plain, sealed, twin, directory]) closeSync(fd)
  rmSync(folder, { recursive: true })
})
