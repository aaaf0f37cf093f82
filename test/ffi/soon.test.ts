/** The short timer: each function once, never early and nested ones later. */

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'

function run(script: string): unknown {
  const module = join(import.meta.dirname, '../../dist/src/ffi/soon.js')
  const text = `import { soon } from ${JSON.stringify(module)}\n${script}`
  const words = ['--expose-gc', '--input-type=module', '-e', text]
  return JSON.parse(execFileSync(process.execPath, words, { encoding: 'utf8', timeout: 20_000 }))
}

it('calls in the order of asking, and what asks again a moment later', () => {
  const order = run(`
    const order = []
    setTimeout(() => {
      console.log(JSON.stringify(order))
      process.exit()
    }, 200)
    soon(() => { order.push('a'); soon(() => order.push('c')) })
    soon(() => order.push('b'))
    order.push('first')`)
  expect(order).toEqual(['first', 'a', 'b', 'c'])
})

it('is never early, whatever the collector does meanwhile', () => {
  const early = run(`
    let [left, early, at] = [500, 0, performance.now()]
    const step = () => {
      const now = performance.now()
      if (now - at < 0.03) early++
      at = now
      if (left % 50 === 0) gc()
      if (--left > 0) soon(step)
      else {
        console.log(early)
        process.exit()
      }
    }
    soon(step)`)
  expect(early).toBe(0)
})
