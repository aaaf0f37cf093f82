/**
 * What the host says about a new port comes in several messages, and of a port without name or host nothing more comes:
 * a port counts as there when its name, its kind or its host is known, or a moment has passed. Used by board.ts and
 * device.ts.
 */

import type { DriverPort } from '../driver/port.ts'

const SETTLE_MS = 150

export class Settling {
  readonly #timers = new Map<DriverPort, NodeJS.Timeout>()
  readonly #show: (port: DriverPort) => void

  constructor(show: (port: DriverPort) => void) {
    this.#show = show
  }

  begin(port: DriverPort): void {
    // After the timers come the interrupts: what the host has said by now is heard first.
    const timer = setTimeout(() => setImmediate(() => this.now(port)), SETTLE_MS)
    this.#timers.set(port, timer)
  }

  /** Shows it, if that has not happened yet. */
  now(port: DriverPort): void {
    if (this.forget(port)) this.#show(port)
  }

  /** Whether it was still to be shown. */
  forget(port: DriverPort): boolean {
    clearTimeout(this.#timers.get(port))
    return this.#timers.delete(port)
  }
}
