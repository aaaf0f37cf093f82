import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { cpio, S_IFDIR, S_IFLNK, S_IFREG } from '../../lab/cpio.ts'
import { ensureBusybox } from '../../lab/fetch/busybox.ts'

const folder = mkdtempSync(join(tmpdir(), 'vmchannel-test-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('busybox cpio unpacks what we packed, for every length of name and of data modulo four', async () => {
  const names = ['a', 'ab', 'abc', 'abcd', 'abcde']
  const archive = cpio([
    { name: 'd', mode: S_IFDIR | 0o755 },
    ...names.map((name, at) => ({ name: `d/${name}`, mode: S_IFREG | 0o640, data: Buffer.alloc(at * 3 + 1, name) })),
    { name: 'empty', mode: S_IFREG | 0o700 },
    { name: 'link', mode: S_IFLNK | 0o777, data: Buffer.from('d/abc') },
  ])
  expect(archive.length % 4).toBe(0)
  execFileSync(await ensureBusybox(), ['cpio', '-i'], {
    cwd: folder,
    input: archive,
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  for (const [at, name] of names.entries()) {
    expect(readFileSync(join(folder, 'd', name))).toEqual(Buffer.alloc(at * 3 + 1, name))
  }
  expect(statSync(join(folder, 'd/ab')).mode & 0o777).toBe(0o640)
  expect(statSync(join(folder, 'empty')).size).toBe(0)
  expect(readlinkSync(join(folder, 'link'))).toBe('d/abc')
})
