/** Back ends on files: file, pipe, null. */

import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { GONE } from '../../src/chardev/chardev.ts'
import { openChardev } from '../../src/chardev/registry.ts'
import type { ChardevSpec } from '../../src/chardev/spec.ts'
import { VmchannelError } from '../../src/errors.ts'
import { makePipe } from '../../src/ffi/pipe.ts'
import { cpuDuring, FakePort, openFds, sleep, textList, until } from './tools.ts'

let dir: string
const cleanup: (() => void)[] = []
beforeEach(() => {
  dir = mkdtempSync('/tmp/files-')
})
afterEach(() => {
  for (const fn of cleanup.splice(0).toReversed()) fn()
  rmSync(dir, { recursive: true, force: true })
})

async function open(spec: ChardevSpec): Promise<FakePort> {
  const port = new FakePort()
  port.open(await openChardev(spec, port))
  cleanup.push(() => port.chardev!.close())
  return port
}

async function failure(spec: ChardevSpec): Promise<VmchannelError> {
  const error: unknown = await open(spec).catch((e: unknown) => e)
  expect(error).toBeInstanceOf(VmchannelError)
  return error as VmchannelError
}

describe('file', () => {
  test('output goes to the file; append=on keeps what is there', async () => {
    const path = join(dir, 'log')
    writeFileSync(path, 'old ')
    const append = await open({ kind: 'file', path, append: true })
    expect(append.chardev!.connected).toBe(true)
    append.write('new')
    append.chardev!.close()
    expect(readFileSync(path, 'utf8')).toBe('old new')
    const port = await open({ kind: 'file', path })
    port.write('over')
    expect(readFileSync(path, 'utf8')).toBe('over')
  })

  test('input-path is read to its end, only while the port reads', async () => {
    const inputPath = join(dir, 'in')
    writeFileSync(inputPath, 'x'.repeat(300_000))
    const port = await open({ kind: 'file', path: join(dir, 'out'), inputPath })
    await sleep(50)
    expect(port.readables).toBe(0)
    port.read(true)
    await until(() => port.inputLen === 300_000, 'input')
    expect(await cpuDuring(200)).toBeLessThan(60)
    expect(port.events).toEqual([])
    expect(port.chardev!.writev(textList('still open'))).toBe(10)
  })

  test('input-path may be a fifo whose writers come and go', async () => {
    const inputPath = join(dir, 'fifo')
    execFileSync('mkfifo', [inputPath])
    const port = await open({ kind: 'file', path: join(dir, 'out'), inputPath })
    port.read(true)
    for (const word of ['one ', 'two']) {
      await sleep(20)
      writeFileSync(inputPath, word)
    }
    await until(() => port.received === 'one two', 'both')
  })

  test('what cannot be opened is named', async () => {
    expect((await failure({ kind: 'file', path: join(dir, 'no/file') })).message).toContain(join(dir, 'no/file'))
    expect((await failure({ kind: 'file', path: dir })).message).toContain('directory')
    const before = openFds().length
    await failure({ kind: 'file', path: join(dir, 'out'), inputPath: join(dir, 'missing') })
    expect(openFds().length).toBe(before)
  })

  test('/dev/full: takes nothing, warns once, does not spin, stays connected', async () => {
    const port = await open({ kind: 'file', path: '/dev/full', append: true })
    port.write('precious')
    expect(port.output.toString()).toBe('precious')
    expect(await cpuDuring(1300)).toBeLessThan(80)
    expect(port.warnings).toHaveLength(1)
    expect(port.warnings[0]).toContain('no space')
    expect(port.writables).toBeGreaterThanOrEqual(2)
    expect(port.chardev!.connected).toBe(true)
  })

  test('a size limit for files (ulimit -f) holds the output and does not end the process', async () => {
    const registry = join(import.meta.dirname, '../../dist/src/chardev/registry.js')
    if (!existsSync(registry)) throw new Error('dist/ is missing: run npm run build first')
    const path = join(dir, 'limited')
    const program = `
      import { openChardev } from ${JSON.stringify(registry)}
      const list = (b) => ({ bytes: [b], offset: [0], len: [b.length], address: [0], count: 1, total: b.length })
      const c = await openChardev({ kind: 'file', path: ${JSON.stringify(path)} }, { warn: console.log, writable() {} })
      const taken = [5000, 5000].map((len) => c.writev(list(Buffer.alloc(len))))
      setTimeout(() => { c.close(); console.log(taken.join(), 'alive') }, 100)`
    const run = ['-c', 'ulimit -f 8; exec "$0" --input-type=module -e "$1"', process.execPath, program]
    const out = execFileSync('/bin/sh', run, { encoding: 'utf8' })
    expect(out).toContain('size limit')
    expect(out).toContain('4096,0 alive')
  })

  test('a full file system that gets space again: nothing is lost', async () => {
    const mount = join(dir, 'small')
    try {
      execFileSync('/bin/sh', ['-c', `mkdir ${mount} && mount -t tmpfs -o size=256k tmpfs ${mount}`], { stdio: 'pipe' })
    } catch {
      return console.log('no right to mount: the test with a full tmpfs did not run')
    }
    cleanup.push(() => execFileSync('umount', ['-l', mount]))
    writeFileSync(join(mount, 'ballast'), Buffer.alloc(128 << 10))
    const port = await open({ kind: 'file', path: join(mount, 'log') })
    const data = Array.from({ length: 40_000 }, (_, i) => `${i}\n`).join('')
    port.write(data)
    await until(() => port.warnings.length === 1, 'warning')
    expect(port.output.length).toBeGreaterThan(64 << 10)
    rmSync(join(mount, 'ballast'))
    await until(() => port.output.length === 0, 'the rest')
    expect(readFileSync(join(mount, 'log'), 'latin1') === data).toBe(true)
  })
})

describe('file on a fifo', () => {
  const fifo = (): string => {
    const path = join(dir, 'fifo')
    execFileSync('mkfifo', [path])
    return path
  }
  const reader = (path: string): number => {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    cleanup.push(() => closeSync(fd))
    return fd
  }
  const read = (fd: number, into: Buffer): number => {
    try {
      return readSync(fd, into)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 0
      throw error
    }
  }

  test('a slow reader sets the pace, no timer does, and nothing is lost', async () => {
    const path = fifo()
    const fd = reader(path)
    const port = await open({ kind: 'file', path, append: true })
    const sent = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => (i * 7 + (i >> 8)) & 0xff))
    vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval'] })
    cleanup.push(() => void vi.useRealTimers())
    port.write(sent.toString('latin1'))
    const got: Buffer[] = []
    const chunk = Buffer.alloc(10_000)
    for (let len = 0, empty = 0; len < sent.length;) {
      const done = read(fd, chunk)
      got.push(Buffer.from(chunk.subarray(0, done)))
      len += done
      empty = done === 0 ? empty + 1 : 0
      if (empty > 1000) throw new Error(`only ${len} bytes came without a timer`)
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(Buffer.concat(got).equals(sent)).toBe(true)
    expect(port.output).toHaveLength(0)
  })

  test('a reader comes late, leaves, and another comes: connected is the truth, and what lay there is read', async () => {
    const path = fifo()
    const port = await open({ kind: 'file', path })
    expect(port.chardev!.connected).toBe(false)
    expect(port.chardev!.writev(textList('nobody'))).toBe(GONE)
    const first = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    await until(() => port.events.length === 1, 'the first reader to be seen')
    expect(port.events).toEqual(['connected'])
    port.write('one')
    const chunk = Buffer.alloc(100)
    expect(chunk.toString('latin1', 0, read(first, chunk))).toBe('one')
    port.write('left behind')
    closeSync(first)
    await until(() => port.events.length === 2, 'the end of the first reader to be seen')
    expect(port.chardev!.connected).toBe(false)
    const second = reader(path)
    await until(() => port.events.length === 3, 'the second reader to be seen')
    expect(port.events).toEqual(['connected', 'gone', 'connected'])
    port.write(' and more')
    expect(chunk.toString('latin1', 0, read(second, chunk))).toBe('left behind and more')
    expect(port.warnings).toEqual([])
  })

  test('who has left is seen at the next write too', async () => {
    const path = fifo()
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const port = await open({ kind: 'file', path })
    closeSync(fd)
    expect(port.chardev!.writev(textList('x'))).toBe(GONE)
    expect(port.chardev!.connected).toBe(false)
    await until(() => port.events.length > 0, 'the port to be told')
    expect(port.events).toEqual(['gone'])
    expect(await cpuDuring(300)).toBeLessThan(150)
  })

  test('the standard output of a program, where that is a pipe', async () => {
    const { read: from, write: to } = makePipe()
    cleanup.push(() => closeSync(from))
    const port = await open({ kind: 'file', path: `/proc/self/fd/${to}` })
    closeSync(to)
    port.write('through the pipe')
    const chunk = Buffer.alloc(100)
    expect(chunk.toString('latin1', 0, read(from, chunk))).toBe('through the pipe')
  })
})

test('a log that somebody empties: append=on leaves no hole, without it there is one', async () => {
  const path = join(dir, 'log')
  for (const append of [true, false]) {
    const port = await open({ kind: 'file', path, append })
    port.write('before')
    truncateSync(path)
    port.write('after')
    expect(readFileSync(path, 'latin1')).toBe(append ? 'after' : `${'\0'.repeat(6)}after`)
    port.chardev!.close()
    truncateSync(path)
  }
})

describe('pipe', () => {
  const fifo = (name: string): string => {
    const path = join(dir, name)
    execFileSync('mkfifo', [path])
    return path
  }
  const { O_RDONLY, O_NONBLOCK } = constants

  test('PATH.in and PATH.out, with writers and readers that come and go', async () => {
    fifo('p.in')
    fifo('p.out')
    const port = await open({ kind: 'pipe', path: join(dir, 'p') })
    port.read(true)
    for (let round = 0; round < 2; round++) {
      writeFileSync(join(dir, 'p.in'), `in ${round};`)
      await until(() => port.received.endsWith(`in ${round};`), 'input')
      expect(await cpuDuring(150)).toBeLessThan(50)
      port.write(`out ${round};`)
      const reader = openSync(join(dir, 'p.out'), O_RDONLY | O_NONBLOCK)
      const bytes = Buffer.alloc(64)
      expect(bytes.toString('latin1', 0, readSync(reader, bytes))).toBe(`out ${round};`)
      closeSync(reader)
    }
    expect(port.events).toEqual([])
  })

  test('a full fifo holds up, and goes on when it is read', async () => {
    const path = fifo('single')
    const port = await open({ kind: 'pipe', path })
    const data = 'y'.repeat(200_000)
    port.write(data)
    expect(port.output.length).toBe(200_000 - 65536)
    const reader = openSync(path, O_RDONLY | O_NONBLOCK)
    cleanup.push(() => closeSync(reader))
    let len = 0
    const bytes = Buffer.alloc(65536)
    await until(() => {
      try {
        len += readSync(reader, bytes)
      } catch {
        // EAGAIN
      }
      return len === data.length
    }, 'all')
    // A single fifo is output: the port does not hear itself.
    port.read(true)
    expect(port.received).toBe('')
  })

  test('what is missing or no pipe is named, with the command to make it', async () => {
    expect((await failure({ kind: 'pipe', path: join(dir, 'p') })).hint).toContain(`mkfifo ${dir}/p.in`)
    fifo('half.in')
    const before = openFds().length
    expect((await failure({ kind: 'pipe', path: join(dir, 'half') })).message).toContain('half.out')
    expect(openFds().length).toBe(before)
    writeFileSync(join(dir, 'plain'), '')
    expect((await failure({ kind: 'pipe', path: join(dir, 'plain') })).hint).toContain('file:')
  })
})

test('null takes everything and gives nothing', async () => {
  const port = await open({ kind: 'null' })
  expect(port.chardev!.connected).toBe(true)
  port.read(true)
  expect(port.chardev!.writev(textList('gone'))).toBe(4)
  expect(port.chardev!.readv(textList('    '))).toBe(0)
})
