/** What the appliance's QEMU is confined by, as it answers: QEMUs that are shell scripts, and the real one. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { findConfinement } from '../../src/inspect/confinement.ts'

const dir = mkdtempSync(join(tmpdir(), 'vmchannel-confined-'))
chmodSync(dir, 0o755)
afterAll(() => rmSync(dir, { recursive: true, force: true }))
const isRoot = process.getuid?.() === 0
const user = isRoot ? { uid: 65_534, gid: 65_534 } : undefined
const BANNER = 'echo "QEMU 11.1.3 monitor - type \'help\' for more information"'

function script(name: string, body: string): string {
  const path = join(dir, name)
  writeFileSync(path, `#!/bin/sh\n${body}\n`)
  chmodSync(path, 0o755)
  return path
}

it('all of it, where QEMU comes up with it', async () => {
  expect(await findConfinement((await ensureQemu()).path)).toEqual({
    user,
    arguments: ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    missing: [],
  })
})

it('no seccomp: the answer counts, not the exit status', async () => {
  const qemu = script(
    'old',
    `case "$*" in *-sandbox*) echo "-sandbox support is not enabled"; exit 0 ;; esac\n${BANNER}`,
  )
  const found = await findConfinement(qemu)
  expect(found).toMatchObject({
    user,
    arguments: [],
    missing: [expect.stringContaining('it has no seccomp') as string],
  })
})

it('nothing that works: QEMU runs as this user, and it is said', async () => {
  const { missing, ...found } = await findConfinement(script('mute', 'exit 0'))
  expect(found).toEqual({ user: undefined, arguments: [] })
  expect(missing.length).toBe(isRoot ? 2 : 1)
})

it('only root can run it', async ({ skip }) => {
  skip(!isRoot, 'run as root to try it as another user')
  const found = await findConfinement(script('rooted', `[ "$(id -u)" = 0 ] || exit 1\n${BANNER}`))
  expect(found).toMatchObject({ user: undefined, arguments: ['-sandbox', expect.anything()] })
  expect(found.missing).toEqual([expect.stringContaining('nobody cannot run it')])
})
