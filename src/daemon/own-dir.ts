/**
 * The state directory of this device process, made after those of dead ones have been removed. Called by the device
 * process; where directories lie, and whose they are, is in state-dir.ts.
 */

import { lstatSync } from 'node:fs'
import { join } from 'node:path'
import { VmchannelError } from '../errors.ts'
import { isHeld } from '../ffi/flock.ts'
import { probeUnix } from '../ffi/unix-probe.ts'
import { CONTROL_SOCKET } from './protocol.ts'
import { listDirs, makePrivateDir, removeDir, stateRoot } from './state-dir.ts'

/** A directory without a control socket, and that nobody holds yet, has just been made, at most this long ago. */
const STARTING_MS = 60_000

/** Makes the state directory of this process. */
export function makeOwnDir(): string {
  const root = stateRoot()
  makePrivateDir(root)
  for (const path of listDirs(root)) if (isDead(path)) removeDir(path)
  for (let i = 0; ; i++) {
    const path = join(root, i === 0 ? String(process.pid) : `${process.pid}-${i}`)
    if (makePrivateDir(path)) return path
    // The number of a process that is gone, and could not be removed: take another name.
    if (i === 100) throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${root}: too many old directories; remove them`)
  }
}

/** Whether no process listens in a state directory any more. In doubt it lives. */
function isDead(path: string): boolean {
  const control = join(path, CONTROL_SOCKET)
  try {
    // A process that waits for the peer of a port has no control socket yet, for as long as that takes.
    if (isHeld(path)) return false
    if (!lstatSync(control, { throwIfNoEntry: false })) return Date.now() - lstatSync(path).mtimeMs > STARTING_MS
    // 'missing': a link to a control socket elsewhere that is gone.
    return probeUnix(control) !== 'open'
  } catch {
    return false
  }
}
