/** Hands the JSON lines of a device process's log to the logger of this program. */

import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import type { Log } from '../log.ts'

export function forwardLog(stderr: Readable, log: Log): void {
  createInterface({ input: stderr, crlfDelay: Infinity }).on('line', (line) => {
    try {
      const { level, msg } = JSON.parse(line) as { level?: string; msg?: unknown }
      const write = level === 'error' || level === 'info' || level === 'debug' ? level : 'warn'
      log[write](String(msg))
    } catch {
      // Not ours: a message of Node itself.
      log.warn(line)
    }
  })
}
