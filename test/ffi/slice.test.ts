/** Short slices: granted where the kernel has them, refused without harm where not, and nothing else is changed. */

import { execFileSync } from 'node:child_process'
import { release } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'

it('a process asks for them, and keeps its priority', () => {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  const has = major > 6 || (major === 6 && minor >= 12)
  // In a process of its own: they are for good.
  const script = `
    import { setPriority, getPriority } from 'node:os'
    import { shortSlices } from ${JSON.stringify(join(import.meta.dirname, '../../dist/src/ffi/slice.js'))}
    setPriority(3)
    console.log(JSON.stringify([shortSlices(300), shortSlices(300), getPriority()]))`
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  expect(JSON.parse(output)).toEqual([has, has, 3])
})
