/**
 * Watches the size of a terminal. There is no event that reaches everybody: SIGWINCH goes to the foreground processes of
 * the terminal's own session, and the master of a pty hears nothing at all. So: a look once a second, and on SIGWINCH.
 */

import { terminalSize } from '../ffi/tty.ts'

const LOOK_MS = 1000

/** Reports the size now (from the event loop) and each new one; returns the way to stop. */
export function watchTerminalSize(fd: number, resized: (cols: number, rows: number) => void): () => void {
  let cols = 0
  let rows = 0
  const look = (): void => {
    const size = terminalSize(fd)
    if (!size || (size.cols === cols && size.rows === rows)) return
    ;({ cols, rows } = size)
    resized(cols, rows)
  }
  const first = setImmediate(look)
  const timer = setInterval(look, LOOK_MS).unref()
  process.on('SIGWINCH', look)
  return () => {
    clearImmediate(first)
    clearInterval(timer)
    process.off('SIGWINCH', look)
  }
}
