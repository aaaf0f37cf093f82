/**
 * Standard error of the device process: a log reader that is slow or gone must never hold up a guest.
 *
 * Lines go out in one write that does not wait, or are left out and counted. Nothing is kept. Called by log.ts.
 */

import { constants, fstatSync, openSync, writeSync } from 'node:fs'
import { sendBytes } from '../ffi/scm.ts'

const STDERR = 2

type Write = (line: Uint8Array) => number

/** A way to write at most as much as goes now; returns the bytes taken, or less than 1. */
export function openStderr(fd: number = STDERR): Write {
  let stat
  try {
    stat = fstatSync(fd)
  } catch {
    return (line) => line.length // closed: nobody listens
  }
  if (stat.isSocket()) return (line) => sendBytes(fd, line, line.length)
  let own = fd
  // An open of our own: non-blocking mode would be shared with everybody else who has this pipe or terminal.
  if (stat.isFIFO() || stat.isCharacterDevice())
    try {
      own = openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
    } catch {
      // A terminal of another user. It takes lines as they come, or is stopped by that user's hand.
    }
  return (line) => {
    try {
      return writeSync(own, line)
    } catch {
      return 0 // EAGAIN: full. EPIPE, EIO: gone.
    }
  }
}

/** Whether standard error is the one that the journal gave us: then lines may carry their priority. */
export function isJournal(
  env: Readonly<Record<string, string | undefined>> = process.env,
  fd: number = STDERR,
): boolean {
  const stream = env['JOURNAL_STREAM']
  if (!stream) return false
  try {
    const { dev, ino } = fstatSync(fd)
    return stream === `${dev}:${ino}`
  } catch {
    return false
  }
}
