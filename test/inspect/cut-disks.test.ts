/** An image that was cut off, at whatever byte: an error for people, which says so where it was in the header. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { VmchannelError } from '../../src/errors.ts'
import { lookAtDisk } from '../../src/inspect/disk-file.ts'
import { evilDisks, WHOLE } from '../support/disk-images.ts'

const dir = mkdtempSync(join(tmpdir(), 'vmchannel-cut-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** What a look says of the file; undefined where it is taken. Anything that is no VmchannelError fails the test. */
function look(path: string): string | undefined {
  try {
    closeSync(lookAtDisk(path).fd)
    return undefined
  } catch (error) {
    if (!(error instanceof VmchannelError) || error.code !== 'ERR_VMCHANNEL_DISK') throw error
    return error.message
  }
}

/** Lengths to try, longest first: each up to `near`, then some. */
function lengths(whole: number, near: number): number[] {
  const far = Array.from({ length: 100 }, (_, at) => Math.floor((whole * at) / 100) + (at % 7))
  const first = Array.from({ length: near }, (_, at) => at)
  return [...new Set([...first, ...far])].filter((len) => len <= whole).toSorted((a, b) => b - a)
}

function eachLength(bytes: Buffer, near: number, see: (len: number, said: string | undefined) => void): void {
  const path = join(dir, 'cut')
  writeFileSync(path, bytes)
  const fd = openSync(path, 'r+')
  for (const len of lengths(bytes.length, near)) {
    ftruncateSync(fd, len)
    see(len, look(path))
  }
  closeSync(fd)
}

/** Bytes that the header has, beyond its magic. */
const HEADERS: readonly (readonly [name: string, magic: number, len: number])[] = [
  ['qcow2 of version 2', 8, 72],
  ['qcow2 of version 3', 8, 104],
  ['vmdk, monolithicSparse', 4, 512 + 20 * 512],
  ['vmdk, streamOptimized', 4, 131 * 512],
  ['qed', 4, 64],
  ['vdi', 0x44, 0x1c8],
  ['vpc', 8, 1536],
  ['vhdx', 8, (1 << 20) + (64 << 10) + 8],
]

describe.each(HEADERS)('%s', (name, magic, headerLen) => {
  it('cut off within its header', () => {
    const wrong: string[] = []
    eachLength(WHOLE[name]!(), 1200, (len, said) => {
      const right =
        len >= headerLen
          ? said === undefined
          : len < magic
            ? said !== undefined
            : /is cut off: the file/.test(said ?? '')
      if (!right) wrong.push(`${len} bytes: ${said}`)
    })
    expect(wrong).toEqual([])
  })
})

it('images that name another file, cut at any byte: never taken for one that is fine', () => {
  const taken: string[] = []
  for (const { name, format, bytes } of evilDisks('/no/secret', '/no/parent')) {
    // Past the field that names it, or in it, it is cut off; before its magic it is something else.
    eachLength(bytes, 0, (len, said) => {
      if (said === undefined && len >= 2560) taken.push(`${name} (${format}), ${len} bytes`)
    })
  }
  expect(taken).toEqual([])
})
