/** What a console driver can be told at the start, checked, with what stands in for what is left out. */

import { VmchannelError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { ResizeOrder } from '../spec/console.ts'
import {
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../spec/features.ts'
import type { DriverPortEvent } from './port-settings.ts'

export interface DriverOptions {
  /**
   * Buffers of each receiveq that is read, and their length in bytes. Default 32 of 4 KiB, which is all that QEMU's own
   * device puts into one; up to 128 where the device runs out of them, or as many as are asked for here.
   */
  receiveBuffers?: number
  receiveBuffersMax?: number
  receiveLen?: number
  /** The same for each transmitq, made when they are first needed. Default 16 of 64 KiB. */
  transmitBuffers?: number
  transmitLen?: number
  /** Microseconds to look at a ring before its interrupt is asked for; default 0. */
  patience?: number
  /** Which way round the device sends RESIZE. */
  resizeOrder?: ResizeOrder
  /** Features to accept where they are offered; default all that this driver knows. */
  features?: bigint
  log?: Log
  /** Runs a function after other events had their turn. Default: setTimeout 0; Node programs pass setImmediate. */
  defer?: (fn: () => void) => void
  onPort?: (event: DriverPortEvent) => void
  /** The device set DEVICE_NEEDS_RESET; `restart` mends that. Called from an interrupt: restart later, not in it. */
  onNeedsReset?: () => void
  /** The driver has stopped: the device broke a control queue. */
  onFailed?: (error: Error) => void
}

export type DriverSettings = Required<Omit<DriverOptions, 'log' | 'onPort' | 'onNeedsReset' | 'onFailed'>> &
  Pick<DriverOptions, 'onPort' | 'onNeedsReset' | 'onFailed'>

/** All that this driver knows. */
export const DRIVER_FEATURES: bigint =
  VIRTIO_CONSOLE_F_SIZE |
  VIRTIO_CONSOLE_F_MULTIPORT |
  VIRTIO_RING_F_INDIRECT_DESC |
  VIRTIO_RING_F_EVENT_IDX |
  VIRTIO_F_VERSION_1

export function checkDriverOptions(options: DriverOptions): DriverSettings {
  const { log: _log, ...rest } = options
  const settings: DriverSettings = {
    receiveBuffers: 32,
    receiveBuffersMax: options.receiveBuffers ?? 128,
    receiveLen: 4096,
    transmitBuffers: 16,
    transmitLen: 65536,
    patience: 0,
    resizeOrder: 'cols-rows',
    features: DRIVER_FEATURES,
    defer: (fn) => void setTimeout(fn, 0),
    ...rest,
  }
  for (const name of ['receiveBuffers', 'receiveBuffersMax', 'transmitBuffers'] as const)
    check(name, settings[name], 1, 1024)
  for (const name of ['receiveLen', 'transmitLen'] as const) check(name, settings[name], 1, 1 << 20)
  check('patience', settings.patience, 0, 1000)
  return settings
}

function check(name: string, n: number, min: number, max: number): void {
  if (!Number.isInteger(n) || n < min || n > max)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${name}: ${n} is not a number from ${min} to ${max}`)
}
