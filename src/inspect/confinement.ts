/**
 * What the appliance's QEMU is kept from, beyond the disks that it is handed: system calls that it does not need
 * (seccomp), and files of others (as nobody, where we are root). Found out by starting it so: an option may be known
 * and not work here. Called by inspect-disk.ts.
 */

import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'

export interface Confinement {
  /** Who QEMU runs as; undefined: this user. */
  user: { uid: number; gid: number } | undefined
  /** QEMU's options. */
  arguments: readonly string[]
  /** What could not be had, for a person. */
  missing: readonly string[]
}

const NOBODY = { uid: 65_534, gid: 65_534 } as const
const SANDBOX = ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'] as const
const ANSWER_TIMEOUT_MS = 20_000
/** It has to reach the device's socket, and to write its temporary files. */
const SCRIPT = 'test -x "$1" && test -w "${TMPDIR:-/var/tmp}" || exit 1; shift; exec "$@"'
const NO_USER = 'a user of its own: nobody cannot run it, or not reach the directory for temporary files'
const NO_SANDBOX = 'a filter of system calls: it has no seccomp'

/** The narrowest that works here. */
export async function findConfinement(qemu: string, isRoot: boolean = process.getuid?.() === 0): Promise<Confinement> {
  const users = isRoot ? [NOBODY, undefined] : [undefined]
  for (const user of users) {
    const noUser = isRoot && user === undefined ? [NO_USER] : []
    if (await answers(qemu, SANDBOX, user)) return { user, arguments: SANDBOX, missing: noUser }
    if (user && (await answers(qemu, [], user))) return { user, arguments: [], missing: [NO_SANDBOX] }
  }
  return { user: undefined, arguments: [], missing: [...(isRoot ? [NO_USER] : []), NO_SANDBOX] }
}

/** Whether its monitor comes up. */
function answers(qemu: string, words: readonly string[], user: Confinement['user']): Promise<boolean> {
  const machine = ['-machine', 'none', '-nodefaults', '-no-user-config', '-display', 'none', '-monitor', 'stdio']
  return new Promise((resolve) => {
    const child = spawn('/bin/sh', ['-c', SCRIPT, 'sh', tmpdir(), qemu, ...machine, ...words], {
      ...user,
      stdio: ['pipe', 'pipe', 'ignore'],
      timeout: ANSWER_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    })
    let said = ''
    child.stdin.on('error', () => {}).end('quit\n')
    child.stdout.setEncoding('latin1').on('data', (text: unknown) => (said = (said + String(text)).slice(0, 4096)))
    child.on('error', () => resolve(false))
    child.on('close', () => resolve(/QEMU \S+ monitor/.test(said)))
  })
}
