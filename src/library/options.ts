/** What programs can say when they make devices and ports, and how that becomes the device process's configuration. */

import type { ChardevSpec } from '../chardev/spec.ts'
import type { WaitOptions } from '../client/abort.ts'
import type { DaemonConfig, VmOptions } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { PortSpec } from '../port-spec.ts'

export interface DeviceOptions extends VmOptions, WaitOptions {
  /**
   * Where messages of the device process go: `inherit` (this program's standard error, the default), `ignore`, or an
   * object with error, warn, info and debug.
   */
  log?: 'inherit' | 'ignore' | Log
  /** Default `warn`. */
  logLevel?: DaemonConfig['logLevel']
  /** Default: where `connect` of other programs finds it. */
  stateDir?: string
  /**
   * With a keeper: when the device process dies another one takes its place, and neither the guest nor the streams of
   * ports notice. Costs two more processes that sleep.
   */
  keeper?: boolean
}

/** A port; see PortSpec for what each of these means. */
export interface PortOptions extends Omit<PortSpec, 'chardev'>, WaitOptions {}

/** A port whose bytes this program reads and writes. */
export interface StreamPortOptions extends PortOptions {
  chardev?: undefined
  /** Bytes kept in either direction, default 64 KiB. */
  highWaterMark?: number
  /** After `end()`: how long the guest may still write while nothing moves. Default 5 s. */
  halfCloseMs?: number
}

/** A port that leads elsewhere, e.g. `chardev: 'unix:/run/agent.sock'`. */
export interface ChardevPortOptions extends PortOptions {
  chardev: string | ChardevSpec
}

/** The part of the options that is the port. */
export function portSpec(options: StreamPortOptions | ChardevPortOptions): PortSpec {
  const { signal: _signal, timeout: _timeout, ...rest } = options
  if (rest.chardev !== undefined) return rest as PortSpec
  const { highWaterMark: _mark, halfCloseMs, ...spec } = rest as StreamPortOptions
  return { ...spec, chardev: halfCloseMs === undefined ? { kind: 'attach' } : { kind: 'attach', halfCloseMs } }
}

const UNITS: Readonly<Record<string, number>> = { M: 1, G: 1024, T: 1024 * 1024 }

/** QEMU's arguments for a guest whose memory the device can reach. `size` is "512M", "2G", or a number of bytes. */
export function sharedMemoryArgs(size: string | number): string[] {
  const match = typeof size === 'string' ? /^(\d+)([MGT])i?B?$/.exec(size) : undefined
  const mib = typeof size === 'number' ? size / 2 ** 20 : match ? Number(match[1]) * UNITS[match[2]!]! : Number.NaN
  if (!Number.isInteger(mib) || mib < 1)
    throw new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      `memory size ${JSON.stringify(size)} is not a whole number of MiB`,
      {
        hint: 'e.g. "512M", "2G", or 536870912 for bytes',
      },
    )
  const backend = `memory-backend-memfd,id=vmchannel-memory,size=${mib}M,share=on`
  return ['-m', `${mib}M`, '-object', backend, '-machine', 'memory-backend=vmchannel-memory']
}
