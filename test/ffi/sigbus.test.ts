/** Files that are cut short under a mapping: the mapping becomes zeros, and nothing else changes. */
import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { createMemfd, SharedMapping } from '../../src/ffi/mmap.ts'
import { losses } from '../../src/ffi/sigbus.ts'
import { UNGUARDED } from '../support/unguarded.ts'

const SIZE = 1 << 20
const mmap = join(import.meta.dirname, '../../dist/src/ffi/mmap.js')

function memory(): { fd: number; mapping: SharedMapping; bytes: Uint8Array } {
  const fd = createMemfd('cut', false)
  ftruncateSync(fd, SIZE)
  const mapping = new SharedMapping(fd, SIZE, true)
  const { bytes } = mapping.pieces(0, SIZE)[0]!
  bytes.fill(7)
  return { fd, mapping, bytes }
}

/** How a program of its own ends. */
function run(script: string): string {
  const { signal, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  })
  return signal ?? (stdout.trim() || stderr)
}

describe('a file that is cut short', () => {
  beforeEach(({ skip }) => skip(process.arch !== 'x64', UNGUARDED))

  it('is zeros from the first touch on, read or written; others are as they were', () => {
    const [cut, whole] = [memory(), memory()]
    const before = losses()
    ftruncateSync(cut.fd, SIZE / 2)
    expect([cut.bytes[0], cut.mapping.lost, losses()]).toEqual([7, false, before])
    expect(Atomics.load(new Uint16Array(cut.bytes.buffer, 0, SIZE / 2), SIZE / 2 - 1)).toBe(0)
    expect([cut.mapping.lost, losses() - before]).toEqual([true, 1])
    expect(cut.bytes.every((byte) => byte === 0)).toBe(true)
    cut.bytes[SIZE - 1] = 3
    expect(cut.bytes[SIZE - 1]).toBe(3)
    expect(whole.mapping.lost).toBe(false)
    expect(whole.bytes.every((byte) => byte === 7)).toBe(true)
    // The place in the table is used again, and has forgotten.
    cut.mapping.drop()
    const next = memory()
    expect(next.mapping.lost).toBe(false)
    ftruncateSync(next.fd, 0)
    next.bytes.set([1, 2, 3], SIZE - 3)
    expect([next.mapping.lost, losses() - before]).toEqual([true, 2])
    for (const { fd, mapping } of [whole, next]) {
      mapping.drop()
      closeSync(fd)
    }
    closeSync(cut.fd)
  })

  it('a mapping that nobody guards, and a signal from outside, still end the process', () => {
    const made = `import { createMemfd, SharedMapping } from ${JSON.stringify(mmap)}
      import { ftruncateSync } from 'node:fs'
      const fd = createMemfd('x', false)
      ftruncateSync(fd, 8192)
      const bytes = new SharedMapping(fd, 8192, true).pieces(0, 8192)[0].bytes
      ftruncateSync(fd, 0)
    `
    expect(run(`${made} console.log(bytes[0])`)).toBe('0')
    expect(run(`${made} process.kill(process.pid, 'SIGBUS'); setTimeout(() => {}, 5000)`)).toBe('SIGBUS')
    const memoryCalls = join(import.meta.dirname, '../../dist/src/ffi/memory-calls.js')
    const libc = join(import.meta.dirname, '../../dist/src/ffi/libc.js')
    const other = `import { mmapFunction } from ${JSON.stringify(memoryCalls)}
      import { viewNative } from ${JSON.stringify(libc)}
      const other = createMemfd('y', false)
      ftruncateSync(other, 8192)
      const view = new Uint8Array(viewNative(BigInt(mmapFunction(0, 8192, 3, 1, other, 0)), 8192))
      ftruncateSync(other, 0)
      console.log(view[0])`
    expect(run(`${made} ${other}`)).toBe('SIGBUS')
  })
})
