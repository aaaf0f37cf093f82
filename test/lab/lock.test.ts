import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import { withLock } from '../../lab/fetch/lock.ts'

const folder = mkdtempSync(join(tmpdir(), 'vmchannel-test-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('two works on one folder do not overlap, also when the first one fails', async () => {
  const steps: string[] = []
  const work = (name: string, fails: boolean) => async () => {
    steps.push(`${name} starts`)
    await sleep(50)
    steps.push(`${name} ends`)
    if (fails) throw new Error(name)
  }
  let waited = 0
  const first = withLock(folder, work('a', true), () => waited++)
  const second = withLock(folder, work('b', false), () => waited++)
  await expect(first).rejects.toThrow('a')
  await second
  expect(steps.map((step) => step.slice(1))).toEqual([' starts', ' ends', ' starts', ' ends'])
  expect(waited).toBe(1)
})
