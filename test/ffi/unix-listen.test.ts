import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { VmchannelError } from '../../src/errors.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { UNIX_PATH_MAX } from '../../src/ffi/unix-address.ts'
import { connectUnix, listenUnix } from '../../src/ffi/unix-listen.ts'

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'vmchannel-unix-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function failure(action: () => unknown): VmchannelError {
  try {
    action()
  } catch (error) {
    if (error instanceof VmchannelError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

test('listens for its owner only, accepts, and removes the socket at the end', () => {
  const path = join(folder, 's')
  const listener = listenUnix(path)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(listener.accept()).toBeUndefined()
  const client = connectUnix(path)
  const server = listener.accept()
  expect(server).toBeGreaterThan(2)
  closeFd(client)
  closeFd(server!)
  listener.close()
  expect(existsSync(path)).toBe(false)
})

test('a socket of a living process is not taken, and goes on working', () => {
  const path = join(folder, 's')
  const listener = listenUnix(path)
  const error = failure(() => listenUnix(path))
  expect(error.code).toBe('ERR_VMCHANNEL_IN_USE')
  expect(error.message).toContain(path)
  // Nobody has come: the second start has only looked.
  expect(listener.accept()).toBeUndefined()
  closeFd(connectUnix(path))
  closeFd(listener.accept()!)
  listener.close()
})

test('a socket of a living process whose queue is full is not taken either', () => {
  const path = join(folder, 's')
  const listener = listenUnix(path, 0)
  const clients = [connectUnix(path)]
  expect(failure(() => listenUnix(path)).code).toBe('ERR_VMCHANNEL_IN_USE')
  clients.forEach(closeFd)
  listener.close()
})

test('the socket of a dead process is taken over', () => {
  const path = join(folder, 's')
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`
  expect(spawnSync(process.execPath, ['-e', script]).signal).toBe('SIGKILL')
  expect(existsSync(path)).toBe(true)
  const listener = listenUnix(path)
  closeFd(connectUnix(path))
  closeFd(listener.accept()!)
  listener.close()
})

test('closing does not remove a socket that somebody else has put there since', () => {
  const path = join(folder, 's')
  const first = listenUnix(path)
  rmSync(path)
  const second = listenUnix(path)
  first.close()
  expect(existsSync(path)).toBe(true)
  second.close()
})

test('says what is wrong with a path', () => {
  const missing = failure(() => listenUnix(join(folder, 'no', 's')))
  expect(missing.code).toBe('ERR_VMCHANNEL_CHARDEV')
  expect(missing.message).toContain(join(folder, 'no'))
  const long = failure(() => listenUnix(join(folder, 'x'.repeat(UNIX_PATH_MAX))))
  expect(long.code).toBe('ERR_VMCHANNEL_USAGE')
  expect(long.message).toContain('at most 107')
  const file = join(folder, 'file')
  writeFileSync(file, 'precious')
  expect(failure(() => listenUnix(file)).code).toBe('ERR_VMCHANNEL_USAGE')
  expect(existsSync(file)).toBe(true)
  expect(failure(() => listenUnix('')).code).toBe('ERR_VMCHANNEL_USAGE')
  expect(failure(() => listenUnix('a\0b')).code).toBe('ERR_VMCHANNEL_USAGE')
  expect(failure(() => connectUnix(join(folder, 'nobody'))).code).toBe('ERR_VMCHANNEL_NOT_FOUND')
})

test('a path of exactly the limit works', () => {
  const path = join(folder, 'x'.repeat(UNIX_PATH_MAX - folder.length - 1))
  expect(path.length).toBe(UNIX_PATH_MAX)
  const listener = listenUnix(path)
  closeFd(connectUnix(path))
  listener.close()
})
