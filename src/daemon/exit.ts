/**
 * How the device process ends: once, with everything removed that it made, whatever the reason. Called by main.ts.
 */

import { exitNow } from '../ffi/local-socket.ts'
import type { Log } from '../log.ts'

const SIGNALS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT']
const FAILED = 70

export class Exit {
  #cleanUp: () => void = () => {}
  #log: Log
  #ended = false
  #kept = false

  constructor(log: Log) {
    this.#log = log
    for (const signal of SIGNALS)
      process.on(signal, () => {
        this.#log.info(`${signal}: ending`)
        this.now(0)
      })
    const crash = (error: unknown): void => {
      this.#log.error(`this is a bug, please report it: ${error instanceof Error ? error.stack : String(error)}`)
      // A successor takes over what is there: nothing may be removed.
      if (this.#kept) exitNow(FAILED)
      this.now(FAILED)
    }
    process.on('uncaughtException', crash)
    process.on('unhandledRejection', crash)
  }

  use(log: Log, cleanUp: () => void): void {
    this.#log = log
    this.#cleanUp = cleanUp
  }

  /** There is a keeper: a bug of ours ends this process, and nothing else. */
  keep(): void {
    this.#kept = true
  }

  /** Cleans up and ends the process. */
  now(status: number): void {
    if (this.#ended) return
    this.#ended = true
    try {
      this.#cleanUp()
    } catch (error) {
      this.#log.error(`while cleaning up: ${String(error)}`)
    }
    // Terminals are put back by exit handlers.
    process.emit('exit', status)
    // What was on its way when it was given up (a VM that waits for a peer) closes what it has opened in this turn.
    // Not process.exit(): that waits for threads, and one may hang in a file system that does not answer.
    setImmediate(() => exitNow(status))
  }
}
