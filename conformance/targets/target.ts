/** A device that cases can be run against. */

import type { RawMachine } from '../raw/machine.ts'

export interface DeviceTarget {
  /** "device" for ours, "qemu", "other". */
  readonly target: string
  /** How it is reached. */
  readonly over: string
  /** What stands in a report: version and the like. */
  readonly banner: string
  /** A machine for one case; the one before has ended. */
  open(): Promise<RawMachine>
  close(): Promise<void>
}

/** What the presets have: a console and two other ports of at most four. */
export const MAX_PORTS = 4
export const CONSOLE_NAME = 'org.conformance.console'
export const SERIAL_NAMES: readonly string[] = ['org.conformance.1', 'org.conformance.2']
/** One for each queue of four ports, and one for configuration changes. */
export const VECTORS = 11
