/** What a driver's port counts and can be told, and what its two queues need of the driver. */

import type { Iovec } from '../mem/iovec.ts'
import type { DriverQueue } from '../ring/driver-queue.ts'
import type { DriverPort } from './port.ts'
import type { Turn } from './turn.ts'

export interface DriverPortCounters {
  /** Bytes taken from the chardev and given to the device. */
  sentBytes: number
  /** Bytes of the device that the chardev took, and those that nobody wanted. */
  receivedBytes: number
  receivedDropped: number
  /** Times the chardev had to wait for the device, and the device for the chardev. */
  transmitStalls: number
  receiveStalls: number
}

export function newDriverCounters(): DriverPortCounters {
  return { sentBytes: 0, receivedBytes: 0, receivedDropped: 0, transmitStalls: 0, receiveStalls: 0 }
}

export type DriverPortEventName =
  | 'added'
  | 'removed'
  | 'named'
  | 'console'
  | 'resized'
  /** The host came, or went. */
  | 'host-open'
  | 'host-close'
  /** The device broke a rule in one of its queues: nothing moves any more. */
  | 'broken'
  /** The driver stopped. */
  | 'stopped'

export interface DriverPortEvent {
  event: DriverPortEventName
  port: DriverPort
}

/** What a queue of a port needs of its driver. */
export interface QueueOwner {
  /** Scratch, used within one call only. */
  readonly list: Iovec
  notify(queue: DriverQueue): void
  fault(queue: DriverQueue, error: unknown): void
  /** What may be done before others have their turn, shared by all queues. */
  readonly turn: Turn
}

export interface PortOwner {
  readonly turn: Turn
  /** Tells the device whether a program has the port open. */
  guestOpen(port: DriverPort, open: boolean): void
  event(port: DriverPort, event: DriverPortEventName): void
  warn(port: DriverPort, message: string): void
}
