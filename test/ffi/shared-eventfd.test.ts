/** Eventfds that somebody else has as well: nothing that the other does makes us wait. */
import { spawnSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { createEventfd, drainEventfd, signalEventfd } from '../../src/ffi/eventfd.ts'
import { duplicate } from '../../src/ffi/local-socket.ts'
import { createMemfd } from '../../src/ffi/mmap.ts'
import { adoptEventfd, drainShared, signalShared } from '../../src/ffi/shared-eventfd.ts'
import { readableNow } from '../../src/ffi/rw.ts'

const opened: number[] = []
afterEach(() => opened.splice(0).forEach((fd) => closeSync(fd)))
const own = (fd: number): number => {
  opened.push(fd)
  return fd
}

test('signals and drains as any eventfd', () => {
  const fd = own(createEventfd())
  expect(drainShared(fd)).toBe(0)
  for (let i = 0; i < 1000; i++) signalShared(fd)
  expect(readableNow(fd)).toBe(true)
  expect(drainShared(fd)).toBe(1000)
  expect(drainShared(fd)).toBe(0)
  signalEventfd(fd)
  signalShared(fd)
  expect(drainEventfd(fd)).toBe(2)
})

// In a process of its own: a call that waits would end no test of this one.
test('a full counter of a blocking eventfd, and an empty one, make nobody wait', () => {
  const at = (path: string): string => JSON.stringify(new URL(`../../dist/src/ffi/${path}`, import.meta.url).href)
  const program = `
    const { createEventfd, drainEventfd, signalEventfd } = await import(${at('eventfd.js')})
    const { adoptEventfd, drainShared, signalShared } = await import(${at('shared-eventfd.js')})
    const { duplicate } = await import(${at('local-socket.js')})
    const { setNonBlocking } = await import(${at('rw.js')})
    const { declare } = await import(${at('libc.js')})
    const theirs = createEventfd(), ours = duplicate(theirs)
    if (!adoptEventfd(ours)) throw new Error('refused')
    setNonBlocking(theirs, false)
    declare('int eventfd_write(int fd, uint64_t value)')(theirs, 0xfffffffffffffffen)
    for (let i = 0; i < 3; i++) signalShared(ours)
    console.log('signalled', drainShared(ours) > 2 ** 63, drainShared(ours))`
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', program], { timeout: 20_000 })
  expect(String(result.stdout) + String(result.stderr)).toBe('signalled true 0\n')
})

test('what is no eventfd is not adopted, whatever it is called', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-eventfd-'))
  const name = join(folder, 'anon_inode:[eventfd]')
  expect(spawnSync('mkfifo', [name]).status).toBe(0)
  expect(adoptEventfd(own(openSync(name, constants.O_RDWR | constants.O_NONBLOCK)))).toBe(false)
  expect(adoptEventfd(own(createMemfd('[eventfd]', false)))).toBe(false)
  expect(adoptEventfd(own(openSync('/dev/null', 'r+')))).toBe(false)
  expect(adoptEventfd(9999)).toBe(false)
  const fd = own(createEventfd())
  expect(adoptEventfd(own(duplicate(fd)))).toBe(true)
  rmSync(folder, { recursive: true })
})
