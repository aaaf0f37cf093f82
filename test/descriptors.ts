/**
 * Runs before and after every test file (setupFiles in vitest.config.ts): what the file opened it has closed. Counts the
 * worker's descriptors by what they lead to; those that Node opens for itself at first use are opened before.
 */
import { spawnSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterAll, beforeEach, onTestFailed } from 'vitest'
import { descriptors, explain, grown, links } from '../lab/descriptors.ts'

/** Sockets that were ended close a moment later, those of a loaded machine later still. */
const SETTLE_MS = 10_000

/** Signals, children and their pipes take descriptors of Node's own once and for all. */
async function warmUp(): Promise<void> {
  spawnSync('/bin/true')
  await once(spawn('/bin/true'), 'close')
}

await warmUp()
const before = descriptors()
const known = new Set(links())
let failed = false

// A test that fails does not close what it has open; that is not its worst.
beforeEach(() => {
  onTestFailed(() => {
    failed = true
  })
})

afterAll(async () => {
  if (failed) return
  const deadline = Date.now() + SETTLE_MS
  let more = grown(before, descriptors())
  while (more.length > 0 && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    more = grown(before, descriptors())
  }
  if (more.length === 0) return
  const which = explain(links().filter((link) => !known.has(link)))
  throw new Error([`this test file leaves descriptors open: ${more.join(', ')}; new are`, ...which].join('\n  '))
}, SETTLE_MS + 30_000)
