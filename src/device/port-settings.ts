/** What a port is, as its owner set it up, and what it needs of its device. */

import type { Batch } from '../ring/batch.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import type { Port } from './port.ts'
import type { DeviceWork } from './work.ts'

/** What happens to guest output that the host does not take in time. */
export type PortPolicy = 'block' | 'drop-oldest' | 'drop-newest' | 'discard'
/** What happens to data that is left when an end closes; undefined is QEMU's way, see `PortSettings.onClose`. */
export type OnClose = 'discard' | 'keep' | 'drain'

export interface PortSettings {
  readonly id: number
  readonly name: string | undefined
  readonly console: boolean
  readonly policy: PortPolicy
  /** Capacity of the hold buffer of the drop policies, bytes. */
  readonly buffer: number
  /**
   * Data left at close. Unset: what the guest wrote for a host peer that left is dropped, what the host wrote for a
   * guest program that closed waits for the next. `drain`: it waits, at most `drainMs`.
   */
  readonly onClose: OnClose | undefined
  readonly drainMs: number
}

export type PortEventName =
  | 'guest-open'
  | 'guest-close'
  | 'host-connect'
  | 'host-disconnect'
  | 'port-ready'
  | 'port-added'
  | 'port-removed'

export interface PortEvent {
  event: PortEventName
  port: Port
}

/** What a port needs of its device. */
export interface PortOwner {
  /** Scratch for one batch; used within one call only. */
  readonly batch: Batch
  /** How long the interrupt for buffers that were sent may wait, ms; 0: not at all. See settlement.ts. */
  readonly settleMs: number
  interrupt(queue: DeviceQueue): void
  /** A queue of this port broke a rule. */
  fault(queue: DeviceQueue, error: unknown): void
  /** Tells the guest whether the host is there. */
  hostOpen(port: Port, open: boolean): void
  resized(port: Port, cols: number, rows: number): void
  warn(port: Port, message: string): void
  /** What may still be done in this turn of the event loop, and what waits for the next. */
  readonly work: DeviceWork
  /** Calls in a moment, some ten microseconds; not where notifications cost nothing. See linger.ts. */
  readonly soon: ((fn: () => void) => void) | undefined
  /** Calls after a time; returns the way to call it off. */
  after(ms: number, fn: () => void): () => void
  event(port: Port, event: PortEventName): void
}
