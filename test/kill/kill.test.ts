/** A short form of `npm run kill`: some points of one or two lives, drawn anew each time. Needs the build. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import type { Report } from '../../kill/run.ts'

const MAIN = new URL('../../dist/kill/main.js', import.meta.url).pathname
const SEED = process.env['KILL_SEED'] ?? String(Date.now() % 1_000_000)

async function run(...args: string[]): Promise<Report> {
  const child = spawn(process.execPath, [MAIN, '--json', '--seed', SEED, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [output] = await Promise.all([text(child.stdout), once(child, 'exit')])
  return JSON.parse(output) as Report
}

describe('kills at system calls', () => {
  it('there is a build', () => expect(existsSync(MAIN)).toBe(true))

  it(`the device process, seed ${SEED}`, { timeout: 600_000 }, async () => {
    const { failures, points } = await run('--sample', '40', '--lives', '2', '--seconds', '25')
    expect(failures).toEqual([])
    expect(points).toBeGreaterThan(0)
    console.log(`${points} kills`)
  })

  it(
    'the supervisor is stopped for the time of a step: what was sent to it meanwhile counts',
    { timeout: 600_000 },
    async () => {
      const { failures, points } = await run('--victim', 'stopped', '--sample', '25', '--seconds', '10')
      expect(failures).toEqual([])
      expect(points).toBeGreaterThan(0)
    },
  )
})
