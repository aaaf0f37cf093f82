/** Back ends on files: file, pipe, null; and stdio, in a process of its own. */

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openChardev } from '../../src/chardev/registry.ts'
import type { ChardevSpec } from '../../src/chardev/spec.ts'
import { VmchannelError } from '../../src/errors.ts'
import { openPty } from '../../src/ffi/pty.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { terminalMode } from '../../src/ffi/tty.ts'
import { cpuDuring, FakePort, openFds, sleep, textList, until } from './tools.ts'

let dir: string
const cleanup: (() => void)[] = []
beforeEach(() => {
  dir = mkdtempSync('/tmp/files-')
})
afterEach(() => {
  for (const fn of cleanup.splice(0).reverse()) fn()
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

describe('stdio, in a process of its own', () => {
  const registry = join(import.meta.dirname, '../../dist/src/chardev/registry.js')
  // Gives back in capitals what it gets; "q" closes and says so on stderr.
  const program = `
    import { openChardev } from ${JSON.stringify(registry)}
    const buffer = Buffer.alloc(4096)
    const list = (b) => ({ bytes: [b], offset: [0], len: [b.length], address: [0], count: 1, total: b.length })
    let c
    const end = {
      setConnected: (on) => console.error('connected', on),
      readable() {
        const n = c.readv(list(buffer))
        if (n <= 0) return
        const text = buffer.toString('latin1', 0, n)
        c.writev(list(Buffer.from(text.toUpperCase())))
        if (text.includes('q')) { c.close(); console.error('closed'); clearInterval(t) }
      },
      writable() {}, resized: (c, r) => console.error('size', c, r), warn: (m) => console.error(m),
    }
    c = await openChardev({ kind: 'stdio', signal: process.env.SIG !== 'off' }, end)
    const t = setInterval(() => {}, 1000)
    c.setReading(true)
    console.error('ready')
    if (process.env.FAIL) setTimeout(() => { throw new Error('boom') }, 50)
    await openChardev({ kind: 'stdio' }, end).catch((e) => console.error(e.code))
  `
  function start(
    stdin: number | 'pipe',
    stdout: number | 'pipe',
    env: Record<string, string> = {},
  ): { child: ChildProcess; log: () => string } {
    if (!existsSync(registry)) throw new Error('dist/ is missing: run npm run build first')
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: [stdin, stdout, 'pipe'],
      env: { ...process.env, ...env },
    })
    cleanup.push(() => child.kill('SIGKILL'))
    let log = ''
    child.stderr!.on('data', (chunk: Buffer) => (log += chunk.toString()))
    return { child, log: () => log }
  }

  test('pipes: both ways, end of input is not the end of output, one port only', async () => {
    const { child, log } = start('pipe', 'pipe')
    let out = ''
    child.stdout!.on('data', (chunk: Buffer) => (out += chunk.toString()))
    await until(() => log().includes('ready'), 'start')
    child.stdin!.write('abc')
    await until(() => out === 'ABC', 'answer')
    child.stdin!.end()
    await sleep(200)
    expect(log()).not.toContain('connected false')
    expect(log()).toContain('ERR_VMCHANNEL_IN_USE')
  })

  test('regular files and /dev/null', async () => {
    const inPath = join(dir, 'in')
    writeFileSync(inPath, 'from a file')
    const input = openSync(inPath, 'r')
    const output = openSync(join(dir, 'out'), 'w')
    const { log } = start(input, output)
    await until(
      () => existsSync(join(dir, 'out')) && readFileSync(join(dir, 'out'), 'utf8') === 'FROM A FILE',
      `copy: ${log()}`,
    )
    closeSync(input)
    closeSync(output)
    const nothing = openSync('/dev/null', 'r+')
    const silent = start(nothing, nothing)
    await until(() => silent.log().includes('ready'), 'start')
    closeSync(nothing)
  })

  test.each(['close', 'SIGTERM', 'SIGHUP', 'exception'])(
    'a terminal is raw meanwhile, and put back after %s',
    async (how) => {
      const pty = openPty()
      const slave = openSync(pty.name, constants.O_RDWR | constants.O_NOCTTY)
      execFileSync('stty', ['sane', 'cols', '100', 'rows', '30'], { stdio: [slave, 'pipe', 'pipe'] })
      const before = Buffer.from(terminalMode(slave)!)
      const { child, log } = start(slave, slave, how === 'exception' ? { FAIL: '1' } : {})
      await until(() => log().includes('ready'), 'start')
      expect(Buffer.from(terminalMode(slave)!).equals(before)).toBe(false)
      await until(() => log().includes('size 100 30'), 'size')
      // The flags of our own open file are not touched: the shell's reads stay blocking.
      expect(readFileSync(`/proc/self/fdinfo/${slave}`, 'utf8')).toMatch(/flags:\s+\d*[0-3]\d{3}\n/)
      if (how === 'close') {
        writeSync(pty.fd, 'q')
        await once(child, 'exit')
        expect(log()).toContain('closed')
        expect(child.exitCode).toBe(0)
      } else if (how === 'exception') {
        await once(child, 'exit')
        expect(child.exitCode).toBe(1)
      } else {
        child.kill(how as NodeJS.Signals)
        await once(child, 'exit')
        expect(child.signalCode).toBe(how)
      }
      expect(Buffer.from(terminalMode(slave)!).equals(before)).toBe(true)
      closeSync(slave)
      closeFd(pty.opens)
      closeFd(pty.fd)
    },
  )

  test('signal=off hands Ctrl-C to the guest', async () => {
    const pty = openPty()
    const slave = openSync(pty.name, constants.O_RDWR | constants.O_NOCTTY)
    const ISIG = 1
    const lflag = (): number => new DataView(terminalMode(slave)!.buffer).getUint32(12, true)
    execFileSync('stty', ['sane'], { stdio: [slave, 'pipe', 'pipe'] })
    const on = start(slave, slave)
    await until(() => on.log().includes('ready'), 'start')
    expect(lflag() & ISIG).toBe(ISIG)
    on.child.kill('SIGTERM')
    await once(on.child, 'exit')
    const off = start(slave, slave, { SIG: 'off' })
    await until(() => off.log().includes('ready'), 'start')
    expect(lflag() & ISIG).toBe(0)
    off.child.kill('SIGTERM')
    await once(off.child, 'exit')
    closeSync(slave)
    closeFd(pty.opens)
    closeFd(pty.fd)
  })
})
