/**
 * What goes over a control socket: one JSON object a line, both ways, UTF-8.
 *
 *     → {"id":1,"method":"port.add","params":{"spec":"unix:/run/a.sock,name=org.example.0"}}
 *     ← {"id":1,"result":{…}}    or    {"id":1,"error":{"code":"ERR_VMCHANNEL_IN_USE","message":"…","hint":"…"}}
 *     ← {"event":"guest-open","vm":"vm0","port":1,"name":"org.example.0","time":1789…}      (after `subscribe`)
 *
 * Replies may come in another order than requests. A line that is no request at all is answered with "id":null, and
 * the connection ends. `port.attach` is the last line of its connection, alone on its way: after the reply the
 * connection carries the bytes of the port, until either side closes it. A subscriber that does not read misses events,
 * and is told how many by a `lost` event; nothing waits for it.
 */

import type { PortCounters } from '../device/counters.ts'
import type { PortEventName } from '../device/port-settings.ts'
import type { ErrorCode } from '../errors.ts'
import type { PortSpec } from '../port-spec.ts'
import type { ResizeOrder } from '../spec/console.ts'

export const PROTOCOL_VERSION = 1
/** Bytes of a request with its newline. */
export const LINE_MAX: number = 64 << 10
/** Bytes of a reply: the statistics of 511 ports are some hundred kilobytes. */
export const REPLY_MAX: number = 4 << 20
/** Name of the control socket in a state directory. */
export const CONTROL_SOCKET = 'control.sock'

/**
 * Memory stays small where nothing is kept: the heap has no reason to grow to the usual gigabytes. And so small a heap
 * is tidied up in less time than it takes to wake others to help, on a busy machine in much less. One helper is left,
 * which compiles: three more would cost 0.8 MiB.
 */
export const DEVICE_FLAGS: readonly string[] = [
  ...['--max-semi-space-size=2', '--single-threaded-gc', '--v8-pool-size=1'],
  '--no-warnings',
]

export interface VmOptions {
  /** Name of the VM in this device process; letters, digits, "-_."; default vm0, vm1… */
  name?: string
  /** Socket that QEMU connects to; default in the state directory. */
  socket?: string
  maxPorts?: number
  queueSize?: number
  vectors?: number
  resizeOrder?: ResizeOrder
  /** The VMM puts it behind a virtual IOMMU: ACCESS_PLATFORM is offered. */
  iommuPlatform?: boolean
  /**
   * `vfio-user` (the default): a PCI device. `usernet`: the far end of a guestfwd of user networking, for a QEMU
   * without vfio-user-pci; in the guest runs `vmchannel guest --usernet`.
   */
  transport?: DeviceTransport
}

export type DeviceTransport = 'vfio-user' | 'usernet'

export interface VmInfo {
  vm: string
  socket: string
  transport: DeviceTransport
  /** Whether a VMM is connected, and whether a driver in its guest runs the device. */
  attached: boolean
  started: boolean
  maxPorts: number
  ports: number
  /** Why the device refuses the guest's driver, in the words of the log; null where all is well. */
  problem: string | null
  /** Arguments that make QEMU use this device (without shared memory, which depends on its size). */
  qemuArgs: string[]
}

export interface PortInfo {
  vm: string
  /** Port number, QEMU's nr. */
  port: number
  name: string | null
  console: boolean
  /** The string form of where it leads. */
  chardev: string
  /** Where that ended up, when it is not in the form: a pty's path, a tcp port. */
  place: string | null
  policy: string
  guestOpen: boolean
  guestReady: boolean
  hostConnected: boolean
}

export interface PortStats extends PortInfo {
  /** How often the device process has died and another has taken over. */
  restarts: number
  counters: PortCounters
}

export interface ProcessInfo {
  version: string
  protocol: number
  /** Whom to signal: the keeper where there is one. */
  pid: number
  stateDir: string
  /** The process that runs the devices, and how many have died before it; where there is a keeper. */
  devicePid?: number
  restarts?: number
}

/** A port by number or by name. */
export type PortRef = number | string

export interface Methods {
  hello: { params: Record<string, never>; result: ProcessInfo }
  'vm.list': { params: Record<string, never>; result: VmInfo[] }
  'vm.add': { params: VmOptions & { ports?: (string | PortSpec)[] }; result: VmInfo }
  'vm.remove': { params: { vm?: string }; result: Record<string, never> }
  'port.list': { params: { vm?: string }; result: PortInfo[] }
  'port.add': { params: { vm?: string; spec: string | PortSpec }; result: PortInfo }
  'port.remove': { params: { vm?: string; port: PortRef }; result: Record<string, never> }
  'port.resize': { params: { vm?: string; port: PortRef; cols: number; rows: number }; result: Record<string, never> }
  'port.stats': { params: { vm?: string; port?: PortRef }; result: PortStats[] }
  /** Takes the place of the host peer of an `attach` port; the connection then carries its bytes. */
  'port.attach': { params: { vm?: string; port: PortRef }; result: PortInfo }
  subscribe: { params: { vm?: string }; result: Record<string, never> }
  /** Ends the device process. */
  stop: { params: Record<string, never>; result: Record<string, never> }
}

export type Method = keyof Methods

export type EventName =
  | PortEventName
  | 'vmm-attached'
  | 'vmm-detached'
  | 'driver-started'
  | 'driver-reset'
  | 'vm-added'
  | 'vm-removed'
  /** The device refuses the driver; `message` says why. */
  | 'problem'
  /** `count` events were left out here. */
  | 'lost'

export interface ControlEvent {
  event: EventName
  /** Not with `lost`. */
  vm?: string
  port?: number
  name?: string | null
  message?: string
  count?: number
  /** Milliseconds since the epoch. */
  time: number
}

export interface ControlError {
  code: ErrorCode
  message: string
  hint?: string
}

/** How a device process is started: one JSON object on its standard input, to the first newline or the end. */
export interface DaemonConfig {
  /**
   * Holds the control socket and default vfio-user sockets; made with mode 0700; removed at the end if it was made.
   * Default: a directory of its own where `vmchannel list` and `connect` find it, see state-dir.ts.
   */
  stateDir?: string
  /** Default: control.sock in the state directory. */
  controlSocket?: string
  vms: (VmOptions & { ports: (string | PortSpec)[] })[]
  /**
   * `vmm`: end when the first VMM has come and gone. `parent`: end when the parent's pipe does. `never`: on request.
   */
  exitWith: 'vmm' | 'parent' | 'never'
  /** With `vmm`: how long to wait for the first one. Default 60 s. */
  connectTimeoutMs?: number
  logLevel: 'error' | 'warn' | 'info' | 'debug'
  /** `text` for people (the default), `json` for programs: pino's lines. Always to standard error. */
  logFormat?: 'text' | 'json'
  /** Inherited descriptors that stand in for standard input and output where a port is `stdio`. */
  terminal?: { input: number; output: number }
  /**
   * Inherited descriptor whose end of file ends the process, whatever exitWith says: a pipe that QEMU holds. A QEMU
   * that ends before it has connected is noticed by it.
   */
  lifeline?: number
  /** With exitWith `parent`: an inherited descriptor that ends with the parent. Default: standard input. */
  parent?: number
  /** The keeper's channel and the page that it shares, inherited descriptors, and its process id. */
  keeper?: { channel: number; page: number; pid: number }
}

/** What a device process says on its standard output, one line, once. */
export type DaemonReady =
  | { ready: { pid: number; stateDir: string; controlSocket: string; vms: VmInfo[] } }
  | { error: ControlError }
