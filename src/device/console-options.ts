/** What a console device can be told at the start, checked, and what it offers. */

import { VmchannelError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { Ledger } from '../mem/ledger.ts'
import { CONSOLE_PORTS_DEFAULT, CONSOLE_PORTS_MAX, portOfQueue, type ResizeOrder } from '../spec/console.ts'
import type { PortEvent } from './port-settings.ts'
import { Scheduler } from './work.ts'

export interface ConsoleOptions {
  /** Ports 0 … maxPorts - 1; 1 means no MULTIPORT: one console, no names. Default 31. */
  maxPorts?: number
  /** Entries of each data queue, and of the two control queues: powers of two. Default 128 and 64. */
  queueSize?: number
  controlQueueSize?: number
  resizeOrder?: ResizeOrder
  /**
   * Its addresses go through an IOMMU: what the memory map has at an address is not what the guest has there (§6.1).
   */
  iommuPlatform?: boolean
  /**
   * How long the interrupt for transmit buffers that were sent may wait, so that there are fewer, ms. Default 2; 0:
   * never.
   */
  settleMs?: number
  log?: Log
  /** Where the state lives that a successor needs; a ledger of its own where it is left out. */
  ledger?: Ledger
  /** Runs a function after other events had their turn. Default: setTimeout 0; Node programs pass setImmediate. */
  defer?: (fn: () => void) => void
  /**
   * Instead of `defer`: what all devices of this event loop share, so that a turn is bounded for all of them together.
   */
  scheduler?: Scheduler
  /** Runs a function some ten microseconds later; without it queues ask for notifications as soon as they are empty. */
  soon?: ((fn: () => void) => void) | undefined
  onEvent?: (event: PortEvent) => void
  /** DRIVER_OK, and the reset that ends it. */
  onDriver?: (started: boolean) => void
}

export const SETTLE_MS_DEFAULT = 2
const QUEUE_SIZE_DEFAULT = 128
const CONTROL_QUEUE_SIZE_DEFAULT = 64
/** 16 bytes of the descriptor table for each entry (§2.7.5). */
const QUEUE_SIZE_ONE_PAGE = 256

/** The number of ports, after everything is checked; VmchannelError names what is wrong. */
export function checkConsoleOptions(options: ConsoleOptions): number {
  const maxPorts = options.maxPorts ?? CONSOLE_PORTS_DEFAULT
  checkNumber('max-ports', maxPorts, 1, CONSOLE_PORTS_MAX)
  // Behind an IOMMU neighbouring pages of a ring lie anywhere: each part of a ring has to fit into one.
  const most = options.iommuPlatform ? QUEUE_SIZE_ONE_PAGE : 1024
  checkQueueSize('queue-size', options.queueSize, most)
  checkQueueSize('control-queue-size', options.controlQueueSize, most)
  return maxPorts
}

export function schedulerOf({ scheduler, defer }: ConsoleOptions): Scheduler {
  return scheduler ?? new Scheduler(defer ?? ((fn) => void setTimeout(fn, 0)))
}

/** Largest size of a queue that exists, in entries. */
export function queueSizeOf(options: ConsoleOptions, queue: number): number {
  const control = portOfQueue(queue) === undefined
  return control ? (options.controlQueueSize ?? CONTROL_QUEUE_SIZE_DEFAULT) : (options.queueSize ?? QUEUE_SIZE_DEFAULT)
}

export function checkNumber(name: string, n: number, min: number, max: number): void {
  if (!Number.isInteger(n) || n < min || n > max)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${name}: ${n} is not a number from ${min} to ${max}`)
}

function checkQueueSize(name: string, size: number | undefined, most: number): void {
  if (size === undefined || (size >= 2 && size <= most && (size & (size - 1)) === 0)) return
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${name}: ${size} is not a power of two from 2 to ${most}`)
}
