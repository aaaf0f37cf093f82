/** The log: what a line looks like, and what happens to lines that do not go. */
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { openLog, type LogOptions } from '../../src/daemon/log.ts'
import { isJournal, openStderr } from '../../src/daemon/stderr.ts'
import { TempDir } from './temp-dir.ts'

const temp = new TempDir()
afterAll(() => temp.remove())

async function logTo(
  options: Partial<LogOptions> = {},
): Promise<{ log: Awaited<ReturnType<typeof openLog>>; text: () => string }> {
  let text = ''
  const write = (line: Uint8Array): number => {
    text += Buffer.from(line).toString()
    return line.length
  }
  return { log: await openLog({ level: 'info', format: 'text', write, ...options }), text: () => text }
}

describe('lines', () => {
  it('for people', async () => {
    const { log, text } = await logTo()
    log.error('no memory\n  add some')
    log.info('all is well')
    log.debug('not this')
    const name = `vmchannel[${process.pid}]: `
    expect(text()).toBe(`${name}error: no memory\n${name}error:   add some\n${name}all is well\n`)
  })

  it('for programs', async () => {
    const { log, text } = await logTo({ format: 'json' })
    log.warn('a "b"\nc')
    expect(JSON.parse(text())).toMatchObject({ level: 'warn', msg: 'a "b"\nc', pid: process.pid })
  })

  it('cannot be forged, and are not endless', async () => {
    const { log, text } = await logTo()
    log.warn(`guest says \u001b[31mred\r${'x'.repeat(10_000)}`)
    expect(text()).toContain('guest says \\x1b[31mred\\x0dxxx')
    expect(text().length).toBeLessThan(2100)
  })

  it('come in a bounded number, with the count of those that do not', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    try {
      const { log, text } = await logTo()
      for (let i = 0; i < 1000; i++) log.warn(`line ${i}`)
      expect(text().trimEnd().split('\n')).toHaveLength(200)
      vi.advanceTimersByTime(1000)
      log.warn('later')
      expect(text().trimEnd().split('\n').slice(-2)).toEqual([
        expect.stringContaining('800 log lines were left out here'),
        expect.stringContaining('later'),
      ])
    } finally {
      vi.useRealTimers()
    }
  })

  it('of one VM do not hide those of another, or of the process', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    try {
      const { log, text } = await logTo()
      const [noisy, quiet] = [log.scope!('noisy'), log.scope!('quiet')]
      for (let i = 0; i < 1000; i++) noisy.error(`queue ${i} is broken`)
      quiet.error('the host has a problem')
      log.info('and the process too')
      const lines = text().trimEnd().split('\n')
      expect(lines).toHaveLength(202)
      expect(lines.at(-2)).toMatch(/: error: quiet: the host has a problem$/)
      expect(lines.at(-1)).toMatch(/: and the process too$/)
    } finally {
      vi.useRealTimers()
    }
  })

  it('that do not fit are left out, torn ones are ended', async () => {
    let room = 40
    let text = ''
    const write = (line: Uint8Array): number => {
      const part = line.subarray(0, room)
      room -= part.length
      text += Buffer.from(part).toString()
      return part.length
    }
    const log = await openLog({ level: 'info', format: 'text', write })
    log.info('the first line which is longer than forty bytes')
    log.info('the second')
    room = 1000
    log.info('the third')
    const lines = text.split('\n')
    expect(lines[0]).toHaveLength(40)
    expect(lines.slice(1)).toEqual([
      expect.stringContaining('1 log lines were left out here'),
      expect.stringContaining('the third'),
      '',
    ])
  })
})

describe('standard error', () => {
  it('as a pipe that is full takes nothing and does not wait, and keeps its mode for others', () => {
    const path = join(temp.path, 'fifo')
    execFileSync('mkfifo', [path])
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const fd = openSync(path, constants.O_WRONLY)
    const write = openStderr(fd)
    const line = Buffer.alloc(4096)
    let sum = 0
    for (let done = 1; done > 0; sum += done) done = write(line)
    expect(sum).toBe(65536)
    const flags = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!
    expect(parseInt(flags, 8) & constants.O_NONBLOCK).toBe(0)
    closeSync(reader)
    expect(write(line)).toBe(0) // EPIPE
    // It has a descriptor of its own, for as long as the process lives.
    const own = readdirSync('/proc/self/fd').filter(
      (name) => existsSync(`/proc/self/fd/${name}`) && readlinkSync(`/proc/self/fd/${name}`) === path,
    )
    for (const name of own) closeSync(Number(name))
  })

  it('as a file', () => {
    const path = join(temp.path, 'log')
    const fd = openSync(path, 'a')
    expect(openStderr(fd)(Buffer.from('line\n'))).toBe(5)
    expect(readFileSync(path, 'utf8')).toBe('line\n')
    closeSync(fd)
  })

  it("is the journal's only where the journal says so", () => {
    const path = join(temp.path, 'journal')
    writeFileSync(path, '')
    const fd = openSync(path, 'a')
    const { dev, ino } = statSync(path)
    expect(isJournal({ JOURNAL_STREAM: `${dev}:${ino}` }, fd)).toBe(true)
    expect(isJournal({ JOURNAL_STREAM: `${dev}:${ino + 1}` }, fd)).toBe(false)
    expect(isJournal({}, fd)).toBe(false)
    closeSync(fd)
  })
})
