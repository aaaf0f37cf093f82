/**
 * What a device says of its driver and its ports, in the log. A driver may break the same queue again and again, with a
 * reset of it in between: there is one line for a queue until the device is reset. Used by console.ts.
 */

import { PeerFault } from '../errors.ts'
import { printable, type Log } from '../log.ts'
import type { PortSettings } from './port-settings.ts'

export class DeviceLog {
  /** Rules of the ring that the driver broke. */
  faults = 0
  readonly #log: Log
  readonly #told = new Set<number>()

  constructor(log: Log) {
    this.#log = log
  }

  /** Only the driver's own mistakes are survived; ours are not hidden. */
  fault(queue: number, error: unknown): void {
    if (!(error instanceof PeerFault)) throw error
    this.faults++
    if (this.#told.has(queue)) return
    this.#told.add(queue)
    this.#log.error(`queue ${queue} is broken, the guest has to reset the device: ${error.message}`)
  }

  warn({ id, name }: PortSettings, message: string): void {
    this.#log.warn(`port ${id}${name === undefined ? '' : ` (${printable(name)})`}: ${message}`)
  }

  /** The device is reset. */
  forget(): void {
    this.#told.clear()
  }
}
