import { spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readlinkSync,
  readSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { constants } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { GONE } from '../../src/chardev/chardev.ts'
import { openChardev } from '../../src/chardev/registry.ts'
import { VmchannelError } from '../../src/errors.ts'
import { closeFd, declare } from '../../src/ffi/libc.ts'
import { setTerminalSize, terminalMode } from '../../src/ffi/tty.ts'
import { cpuDuring, FakePort, openFds, sleep, textList, until } from './tools.ts'

let dir: string
const cleanup: (() => void)[] = []
beforeEach(() => {
  dir = mkdtempSync('/tmp/pty-')
})
afterEach(() => {
  for (const fn of cleanup.splice(0).toReversed()) fn()
  rmSync(dir, { recursive: true, force: true })
})

async function open(path?: string): Promise<FakePort> {
  const port = new FakePort()
  port.open(await openChardev({ kind: 'pty', ...(path === undefined ? {} : { path }) }, port))
  cleanup.push(() => port.chardev!.close())
  return port
}

function slaveOf(port: FakePort): number {
  const { O_RDWR, O_NOCTTY, O_NONBLOCK } = constants
  return openSync(port.chardev!.place!, O_RDWR | O_NOCTTY | O_NONBLOCK)
}

test('connected only while somebody has it open, without spinning', async () => {
  const port = await open()
  expect(port.chardev!.place).toMatch(/^\/dev\/pts\/\d+$/)
  expect(port.chardev!.connected).toBe(false)
  expect(port.chardev!.writev(textList('lost?'))).toBe(GONE)
  port.read(true)
  expect(await cpuDuring(500)).toBeLessThan(200)
  for (let round = 0; round < 3; round++) {
    const slave = slaveOf(port)
    await until(() => port.events.at(-1) === 'connected', 'connected')
    writeSync(slave, `round ${round}\r\x03`)
    await until(() => port.received.endsWith(`round ${round}\r\x03`), 'input, raw')
    port.write('echo\n')
    const bytes = Buffer.alloc(64)
    expect(bytes.toString('latin1', 0, readSync(slave, bytes))).toBe('echo\n')
    expect(await cpuDuring(200)).toBeLessThan(100)
    closeSync(slave)
    await until(() => port.events.at(-1) === 'gone', 'gone')
    expect(await cpuDuring(200)).toBeLessThan(100)
  }
  // Nothing came back as an echo of what the guest wrote.
  expect(port.received).not.toContain('echo')
})

test('without inotify (its limit is used up) it looks instead', async () => {
  const inotifyInit = declare('int inotify_init1(int flags)')
  const taken: number[] = []
  for (let fd = 0; fd !== -1 && taken.length < 20_000;) {
    fd = inotifyInit(0o2000000)
    if (fd !== -1) taken.push(fd)
  }
  cleanup.push(() => taken.splice(0).forEach(closeFd))
  const port = await open()
  expect(openFds().filter((line) => line.includes('inotify'))).toHaveLength(taken.length)
  taken.splice(0).forEach(closeFd)
  for (let round = 0; round < 2; round++) {
    const slave = slaveOf(port)
    await until(() => port.events.at(-1) === 'connected', 'connected')
    closeSync(slave)
    await until(() => port.events.at(-1) === 'gone', 'gone')
  }
  expect(await cpuDuring(500)).toBeLessThan(200)
})

test('one who writes and leaves at once is heard', async () => {
  const port = await open()
  port.read(true)
  const slave = slaveOf(port)
  writeSync(slave, 'in passing')
  closeSync(slave)
  await until(() => port.received === 'in passing', 'input')
  await until(() => port.events.join() === 'connected,gone', 'gone')
})

test('leaves with unread bytes, and another opens: the bytes stay, output goes on', async () => {
  const port = await open()
  const first = slaveOf(port)
  await until(() => port.chardev!.connected, 'connected')
  writeSync(first, 'early ')
  closeSync(first)
  await sleep(100)
  expect(await cpuDuring(300)).toBeLessThan(60)
  const second = slaveOf(port)
  cleanup.push(() => closeSync(second))
  await sleep(500)
  writeSync(second, 'late')
  port.read(true)
  await until(() => port.received === 'early late', 'both')
  port.write('out')
  const bytes = Buffer.alloc(64)
  await until(() => {
    try {
      return bytes.toString('latin1', 0, readSync(second, bytes)) === 'out'
    } catch {
      return false
    }
  }, 'output')
})

test('a reader that does not read holds up the writer; nothing is lost', async () => {
  const port = await open()
  const slave = slaveOf(port)
  await until(() => port.chardev!.connected, 'connected')
  const sent = Array.from({ length: 20_000 }, (_, i) => `${i}\n`).join('')
  port.write(sent)
  expect(port.output.length).toBeGreaterThan(sent.length / 2)
  expect(await cpuDuring(300)).toBeLessThan(60)
  let got = ''
  const bytes = Buffer.alloc(4096)
  await until(() => {
    try {
      got += bytes.toString('latin1', 0, readSync(slave, bytes))
    } catch {
      // EAGAIN
    }
    return got.length >= sent.length
  }, 'all')
  expect(got === sent).toBe(true)
  closeSync(slave)
})

test('a program at the other end: cat gives back what it gets', async () => {
  const port = await open(join(dir, 'link'))
  port.read(true)
  const cat = spawn('/bin/sh', ['-c', `cat <"${dir}/link" >"${dir}/link"`])
  cleanup.push(() => cat.kill())
  await until(() => port.chardev!.connected, 'connected')
  await sleep(100)
  port.write('round trip')
  await until(() => port.received === 'round trip', 'round trip')
})

test('the size is reported at the start and when it changes', async () => {
  const port = await open()
  const slave = slaveOf(port)
  cleanup.push(() => closeSync(slave))
  await until(() => port.chardev!.connected, 'connected')
  setTerminalSize(slave, { cols: 132, rows: 50 })
  process.emit('SIGWINCH')
  await until(() => port.events.includes('132x50'), 'first size')
  setTerminalSize(slave, { cols: 80, rows: 24 })
  await until(() => port.events.includes('80x24'), 'second size', 2000)
})

test('the link is made and removed; a dead one is replaced, anything else is not', async () => {
  const path = join(dir, 'link')
  symlinkSync('/dev/pts/99999', path)
  const port = await open(path)
  expect(readlinkSync(path)).toBe(port.chardev!.place)
  const before = openFds().length
  const error = (await open(path).catch((e: unknown) => e)) as VmchannelError
  expect(error.code).toBe('ERR_VMCHANNEL_IN_USE')
  expect(error.message).toContain(path)
  expect(openFds().length).toBe(before)
  port.chardev!.close()
  expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined()
  const missing = (await open(join(dir, 'no/link')).catch((e: unknown) => e)) as VmchannelError
  expect(missing.code).toBe('ERR_VMCHANNEL_CHARDEV')
})

test('closing gives everything back', async () => {
  const before = openFds().length
  for (let i = 0; i < 10; i++) {
    const port = await open()
    const slave = slaveOf(port)
    await until(() => port.chardev!.connected, 'connected')
    const name = port.chardev!.place!
    port.chardev!.close()
    closeSync(slave)
    expect(existsSync(name)).toBe(false)
  }
  expect(openFds().length).toBe(before)
  expect(process.listenerCount('SIGWINCH')).toBe(0)
})

test('a terminal mode of a file is none', () => {
  const fd = openSync('/dev/null', 'r')
  expect(terminalMode(fd)).toBeUndefined()
  closeSync(fd)
})
