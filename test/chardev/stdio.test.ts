/** stdio, in a process of its own. */

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openPty } from '../../src/ffi/pty.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { terminalMode } from '../../src/ffi/tty.ts'
import { sleep, until } from './tools.ts'

let dir: string
const cleanup: (() => void)[] = []
beforeEach(() => {
  dir = mkdtempSync('/tmp/files-')
})
afterEach(() => {
  for (const fn of cleanup.splice(0).toReversed()) fn()
  rmSync(dir, { recursive: true, force: true })
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
