/** The short timer: each function once, never early and nested ones later. */

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'

function run(script: string): unknown {
  const module = join(import.meta.dirname, '../../dist/src/ffi/soon.js')
  const text = `import { soon } from ${JSON.stringify(module)}\n${script}`
  // With few descriptors, so that they are soon used up.
  const words = [
    '-c',
    'ulimit -n 64; exec "$0" "$@"',
    process.execPath,
    '--expose-gc',
    '--input-type=module',
    '-e',
    text,
  ]
  return JSON.parse(execFileSync('sh', words, { encoding: 'utf8', timeout: 20_000 }))
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

it('does without a timer where there is no descriptor left for one', () => {
  const found = run(`
    import { closeSync, openSync } from 'node:fs'
    const taken = []
    try {
      for (;;) taken.push(openSync('/dev/null'))
    } catch {}
    soon(() => {
      for (const fd of taken) closeSync(fd)
      soon(() => {
        console.log(taken.length > 0)
        process.exit()
      })
    })`)
  expect(found).toBe(true)
})
