/** A message on standard error without Node's stream, for a process that is about to become QEMU. */

import { writeSync } from 'node:fs'
import { escapeText } from '../escape.ts'

export function sayNow(text: string): void {
  try {
    writeSync(2, `${escapeText(text)}\n`)
  } catch {
    // Closed, or a pipe that is full: no reason to stop.
  }
}
