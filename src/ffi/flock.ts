/**
 * Locks of directories (flock): whoever uses one holds a shared lock on it, which the kernel gives back when the last
 * copy of the descriptor is closed, however its holders ended. Called by the device process.
 */

import { closeSync, constants, openSync } from 'node:fs'
import { declare } from './libc.ts'

const flockFunction = declare('int flock(int fd, int operation)')
const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4

/** Holds a directory as in use; undefined where its file system has no locks. */
export function holdDir(path: string): number | undefined {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  if (flockFunction(fd, LOCK_SH | LOCK_NB) === 0) return fd
  closeSync(fd)
  return undefined
}

/** Whether somebody holds a directory. */
export function isHeld(path: string): boolean {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    return flockFunction(fd, LOCK_EX | LOCK_NB) !== 0
  } finally {
    closeSync(fd)
  }
}
