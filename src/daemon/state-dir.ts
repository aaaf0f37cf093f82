/**
 * Where device processes keep their sockets, one directory each, and where others look for them: by default below
 * VMCHANNEL_STATE_DIR or XDG_RUNTIME_DIR, /run for root, else the temporary directory. Called by the device process and
 * by client/find.ts.
 *
 * Others may write to the temporary directory: nothing there is believed unless it is ours and closed to them.
 */

import { lstatSync, mkdirSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { VmchannelError } from '../errors.ts'

/** The directory that holds one directory for each device process of this user. */
export function stateRoot(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const own = env['VMCHANNEL_STATE_DIR']
  if (own) return resolve(own)
  const uid = process.getuid?.() ?? 0
  const runtime = env['XDG_RUNTIME_DIR']
  // After sudo it may be somebody else's.
  if (runtime && isAbsolute(runtime) && ownerOf(runtime) === uid) return join(runtime, 'vmchannel')
  return uid === 0 ? '/run/vmchannel' : join(tmpdir(), `vmchannel-${uid}`)
}

function ownerOf(path: string): number | undefined {
  try {
    return lstatSync(path).uid
  } catch {
    return undefined
  }
}

/** Makes the directory with mode 0700, or checks one that is there; returns whether it was made. */
export function makePrivateDir(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 })
    return true
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code !== 'EEXIST')
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `cannot make the state directory ${path}: ${code}`, {
        cause,
        hint: code === 'ENOENT' ? 'its parent directory has to exist' : 'set VMCHANNEL_STATE_DIR to another one',
      })
  }
  checkPrivateDir(path)
  return false
}

/** Throws unless `path` is a directory of this user that nobody else can write to. */
export function checkPrivateDir(path: string): void {
  const found = lstatSync(path)
  const uid = process.getuid?.() ?? 0
  const why = !found.isDirectory()
    ? 'it is not a directory'
    : found.uid !== uid
      ? `it belongs to user ${found.uid}, not to ${uid}`
      : (found.mode & 0o022) !== 0
        ? `others may write to it (mode 0${(found.mode & 0o777).toString(8)})`
        : undefined
  if (why !== undefined)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `the state directory ${path} cannot be used: ${why}`, {
      hint: 'remove it, or set VMCHANNEL_STATE_DIR to a directory of your own',
    })
}

/** Directories below `root` that belong to this user. */
export function listDirs(root: string): string[] {
  try {
    checkPrivateDir(root)
    const names = readdirSync(root, { withFileTypes: true })
    return names.filter((entry) => entry.isDirectory()).map((entry) => join(root, entry.name))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** Removes a state directory and the sockets in it; anything else that somebody put there stays, and so does it. */
export function removeDir(path: string): void {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isSocket() || entry.isSymbolicLink()) unlinkSync(join(path, entry.name))
    rmdirSync(path)
  } catch {
    // Somebody else was faster, or something else lies there.
  }
}
