/** What `vmchannel guest` says on standard error: the device causes it, so it has a limit. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { stderrLog } from '../../src/guest/main.ts'

describe('the log of vmchannel guest', () => {
  let lines: string[]
  beforeEach(() => {
    lines = []
    vi.useFakeTimers({ toFake: ['performance'] })
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      lines.push(String(text))
      return true
    })
  })
  afterEach(() => {
    vi.restoreAllMocks()
    vi.useRealTimers()
  })

  it('a device that adds and removes ports for ever: a bounded number of lines, and the count of the others', () => {
    const log = stderrLog()
    for (let n = 0; n < 5000; n++) {
      log.info(`port ${n} is there`)
      log.warn(`port ${n} has gone`)
    }
    expect(lines).toHaveLength(200)
    expect(lines[0]).toBe('vmchannel guest: port 0 is there\n')
    vi.advanceTimersByTime(1000)
    for (let n = 0; n < 100; n++) log.error('trouble')
    expect(lines.slice(200)).toEqual([
      'vmchannel guest: warning: 9800 log lines were left out here\n',
      ...Array.from({ length: 20 }, () => 'vmchannel guest: error: trouble\n'),
    ])
  })

  it('lines that nobody wants to see count for nothing', () => {
    const log = stderrLog(true)
    for (let n = 0; n < 1000; n++) log.info('quiet')
    log.warn('said')
    expect(lines).toEqual(['vmchannel guest: warning: said\n'])
  })

  it('a line is escaped, and not endless', () => {
    stderrLog().warn(`name \u001b[31m${'x'.repeat(10_000)}`)
    expect(lines[0]).toContain('\\x1b[31mxxx')
    expect(lines[0]!.length).toBeLessThan(2100)
  })
})
