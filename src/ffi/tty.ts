/**
 * Terminals: raw mode and size, by ioctl on any fd of one. Called by chardev/pty.ts and chardev/stdio.ts.
 */

import { declare } from './libc.ts'

const ioctlFunction = declare('int ioctl(int fd, unsigned long request, void *argument)')

const TCGETS = 0x5401
const TCSETSW = 0x5403
const TIOCGWINSZ = 0x5413
const TIOCSWINSZ = 0x5414
/** struct termios of the kernel: four flag words, line discipline, 19 control characters. */
const TERMIOS_SIZE = 36
const IFLAG = 0
const OFLAG = 4
const CFLAG = 8
const LFLAG = 12
const CC = 17
const VTIME = 5
const VMIN = 6

/** Input: IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON. */
const RAW_IFLAG = 0o1 | 0o2 | 0o10 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000
/** Local: ICANON ECHO ECHONL IEXTEN. */
const RAW_LFLAG = 0o2 | 0o10 | 0o100 | 0o100000
const ISIG = 0o1
const OPOST = 0o1
const CSIZE = 0o60
const PARENB = 0o400
const CS8 = 0o60

export interface TerminalSize {
  cols: number
  rows: number
}

/** The settings of a terminal, to be put back later; undefined where the fd is no terminal. */
export function terminalMode(fd: number): Uint8Array | undefined {
  const termios = new Uint8Array(TERMIOS_SIZE)
  return ioctlFunction(fd, TCGETS, termios) === 0 ? termios : undefined
}

export function setTerminalMode(fd: number, termios: Uint8Array): void {
  ioctlFunction(fd, TCSETSW, termios)
}

/**
 * Every byte passes as it is, at once, without echo. `signals` leaves Ctrl-C and the like to the terminal, `output` its
 * translation of line ends.
 */
export function rawMode(before: Uint8Array, keep: { signals: boolean; output: boolean }): Uint8Array {
  const termios = before.slice()
  const view = new DataView(termios.buffer)
  const clear = (at: number, bits: number): void => view.setUint32(at, view.getUint32(at, true) & ~bits, true)
  clear(IFLAG, RAW_IFLAG)
  clear(LFLAG, RAW_LFLAG | (keep.signals ? 0 : ISIG))
  clear(CFLAG, CSIZE | PARENB)
  view.setUint32(CFLAG, view.getUint32(CFLAG, true) | CS8, true)
  if (!keep.output) clear(OFLAG, OPOST)
  termios[CC + VMIN] = 1
  termios[CC + VTIME] = 0
  return termios
}

/** Size in characters; undefined where it is unknown or the fd is no terminal. */
export function terminalSize(fd: number): TerminalSize | undefined {
  const winsize = new Uint8Array(8)
  if (ioctlFunction(fd, TIOCGWINSZ, winsize) !== 0) return undefined
  const view = new DataView(winsize.buffer)
  const rows = view.getUint16(0, true)
  const cols = view.getUint16(2, true)
  return rows === 0 || cols === 0 ? undefined : { cols, rows }
}

export function setTerminalSize(fd: number, { cols, rows }: TerminalSize): void {
  const winsize = new Uint8Array(8)
  const view = new DataView(winsize.buffer)
  view.setUint16(0, rows, true)
  view.setUint16(2, cols, true)
  ioctlFunction(fd, TIOCSWINSZ, winsize)
}
