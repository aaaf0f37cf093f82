import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { guestProgram } from '../../lab/fetch/compiler.ts'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'

const folder = mkdtempSync(join(tmpdir(), 'vmchannel-test-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('the pattern does not depend on the pieces in which it is taken', () => {
  const whole = new Pattern(7).take(1000)
  const pattern = new Pattern(7)
  const pieces = [1, 2, 3, 4, 5, 6, 7, 100, 872].map((len) => pattern.take(len))
  expect(Buffer.concat(pieces)).toEqual(whole)
  expect(new Pattern(8).take(1000)).not.toEqual(whole)
})

test('the guest program makes the same pattern and the same checksum', async () => {
  const vmtest = await guestProgram('vmtest')
  const file = join(folder, 'out')
  for (const [len, block, seed] of [
    [1_000_003, 4096, 1],
    [10_007, 7, 0xdeadbeef],
    [65_536, 65_536, 0],
  ] as const) {
    writeFileSync(file, '')
    const said = JSON.parse(
      execFileSync(vmtest, ['source', file, String(len), String(block), String(seed)]).toString(),
    ) as { sha256: string }
    const bytes = readFileSync(file)
    expect(bytes.equals(new Pattern(seed).take(len))).toBe(true)
    expect(said.sha256).toBe(createHash('sha256').update(bytes).digest('hex'))
    expect(said.sha256).toBe(patternSha256(len, seed))
    const sink = execFileSync(vmtest, ['sink', file, String(len), '1000']).toString()
    expect(sink).toContain(said.sha256)
  }
})
