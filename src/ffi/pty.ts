/**
 * Pseudo-terminals: making a pair, and hearing that somebody opens the slave. Called by chardev/pty.ts.
 */

import { check, closeFd, declare } from './libc.ts'
import { rawMode, setTerminalMode, terminalMode } from './tty.ts'

const openptFunction = declare('int posix_openpt(int flags)')
const grantptFunction = declare('int grantpt(int fd)')
const unlockptFunction = declare('int unlockpt(int fd)')
const ptsnameFunction = declare('int ptsname_r(int fd, void *name, size_t len)')
const openFunction = declare('int open(const char *path, int flags)')
const inotifyInitFunction = declare('int inotify_init1(int flags)')
const inotifyAddFunction = declare('int inotify_add_watch(int fd, const char *path, unsigned int mask)')

const O_RDWR = 0o2
const O_NOCTTY = 0o400
const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000
const IN_OPEN = 0x20

export interface Pty {
  /** The master. It reports a hang-up while nobody has the slave open, from the start. */
  readonly fd: number
  /** "/dev/pts/7" */
  readonly name: string
  /** An inotify fd that becomes readable when the slave is opened; -1 where there is none to be had. */
  readonly opens: number
}

/** Makes a pty in raw mode: no echo, no translation, no signals. */
export function openPty(): Pty {
  const code = 'ERR_VMCHANNEL_CHARDEV'
  const fd = check(openptFunction(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), 'posix_openpt', 'pty', code)
  try {
    check(grantptFunction(fd), 'grantpt', 'pty', code)
    check(unlockptFunction(fd), 'unlockpt', 'pty', code)
    const bytes = new Uint8Array(128)
    check(ptsnameFunction(fd, bytes, bytes.length) === 0 ? 0 : -1, 'ptsname_r', 'pty', code)
    const name = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)))
    // Once opened and closed, the master knows that nobody is there; a fresh one does not.
    const slave = check(openFunction(name, O_RDWR | O_NOCTTY | O_CLOEXEC), 'open', name, code)
    const mode = terminalMode(slave)
    if (mode) setTerminalMode(slave, rawMode(mode, { signals: false, output: false }))
    closeFd(slave)
    return { fd, name, opens: watchOpens(name) }
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

function watchOpens(path: string): number {
  const fd = inotifyInitFunction(O_NONBLOCK | O_CLOEXEC)
  if (fd === -1) return -1
  if (inotifyAddFunction(fd, path, IN_OPEN) !== -1) return fd
  closeFd(fd)
  return -1
}
