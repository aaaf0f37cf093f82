/**
 * QEMU's -chardev as one of our back ends, or the reason why it cannot be one. Called by serial.ts: a reason means that
 * the whole device stays with QEMU.
 */

import { checkChardevSpec, type ChardevSpec } from '../chardev/spec.ts'
import { VmchannelError } from '../errors.ts'
import { hasOption, optionBoolean, optionText, type OptionString } from './option.ts'

export type Converted<T> = { spec: T } | { reason: string }

/** Options that every -chardev has. */
const COMMON = ['backend', 'id', 'mux', 'logfile', 'logappend']

/** Options that can be carried, by QEMU's name of the back end. */
const KNOWN: Readonly<Record<string, readonly string[]>> = {
  socket: (
    'path fd host port server wait reconnect reconnect-ms ipv4 ipv6 nodelay delay ' +
    'telnet tn3270 websocket abstract tight tls-creds to'
  ).split(' '),
  pty: ['path'],
  stdio: ['signal'],
  file: ['path', 'append', 'input-path'],
  pipe: ['path'],
  null: [],
}

/** Back ends that live inside QEMU, with what they are for. */
const INSIDE: Readonly<Record<string, string>> = {
  spicevmc: 'it belongs to the SPICE server inside QEMU',
  spiceport: 'it belongs to the SPICE server inside QEMU',
  'qemu-vdagent': 'it is the clipboard inside QEMU',
  dbus: 'it belongs to the D-Bus display inside QEMU',
  vc: 'it is a console of the display inside QEMU',
  mux: 'it is shared inside QEMU',
  hub: 'it is shared inside QEMU',
  ringbuf: 'it is a buffer inside QEMU',
  memory: 'it is a buffer inside QEMU',
}

export interface ChardevContext {
  /** Permission bits that a new socket does not get; QEMU goes by it, we do not unless told. */
  umask: number | undefined
  /** Whether something else of this command line uses QEMU's standard input and output. */
  stdioTaken: boolean
}

/** Converts one -chardev. The reason completes "… stays with QEMU: ". */
export function convertChardev(option: OptionString, context: ChardevContext): Converted<ChardevSpec> {
  const backend = optionText(option, 'backend') ?? ''
  const name = `-chardev ${backend},id=${optionText(option, 'id') ?? ''}`
  const known = KNOWN[backend]
  if (!known) return { reason: `${name}: ${INSIDE[backend] ?? 'no back end of vmchannel does the same'}` }
  if (optionBoolean(option, 'mux', false) !== false) return { reason: `${name}: mux=on shares it inside QEMU` }
  if (hasOption(option, 'logfile')) return { reason: `${name}: logfile is QEMU's own` }
  const foreign = option.entries.find((entry) => !COMMON.includes(entry.key) && !known.includes(entry.key))
  if (foreign) return { reason: `${name}: option ${foreign.key} is not known here` }
  const raw = convertKind(backend, option, context)
  if ('reason' in raw) return { reason: `${name}: ${raw.reason}` }
  try {
    return { spec: checkChardevSpec(raw.spec, name) }
  } catch (error) {
    // Whatever our back ends refuse (a path too long, a service name for a port), QEMU may still do, or report itself.
    if (error instanceof VmchannelError) return { reason: error.message }
    throw error
  }
}

type Raw = Record<string, unknown>

function convertKind(backend: string, option: OptionString, context: ChardevContext): Converted<Raw> {
  const path = inheritedPath(optionText(option, 'path'))
  if (path?.startsWith('/dev/fdset/')) return { reason: `${path} is a descriptor that only QEMU has` }
  switch (backend) {
    case 'socket':
      return convertSocket(option, context)
    case 'pty':
      return { spec: clean({ kind: 'pty', path }) }
    case 'stdio': {
      if (context.stdioTaken) return { reason: 'standard input and output are used by another option as well' }
      return { spec: clean({ kind: 'stdio', signal: flagOf(option, 'signal') }) }
    }
    case 'file': {
      const spec = {
        kind: 'file',
        path,
        append: flagOf(option, 'append'),
        inputPath: inheritedPath(optionText(option, 'input-path')),
      }
      return { spec: clean(spec) }
    }
    case 'pipe':
      return { spec: clean({ kind: 'pipe', path }) }
    default:
      return { spec: { kind: 'null' } }
  }
}

const STANDARD: Readonly<Record<string, string>> = { '/dev/stdin': '0', '/dev/stdout': '1', '/dev/stderr': '2' }

/**
 * A path that means a descriptor of QEMU's: this process becomes QEMU, and the device process has other descriptors.
 */
function inheritedPath(path: string | undefined): string | undefined {
  if (path === undefined) return undefined
  const fd = STANDARD[path] ?? /^\/(?:dev|proc\/self)\/fd\/(\d+)$/.exec(path)?.[1]
  return fd === undefined ? path : `/proc/${process.pid}/fd/${fd}`
}

function convertSocket(option: OptionString, context: ChardevContext): Converted<Raw> {
  for (const key of ['telnet', 'tn3270', 'websocket', 'abstract']) {
    if (optionBoolean(option, key, false) !== false) return { reason: `${key} is not supported` }
  }
  for (const key of ['tls-creds', 'to']) {
    if (hasOption(option, key)) return { reason: `${key} is not supported` }
  }
  const server = optionBoolean(option, 'server', false)
  const wait = optionBoolean(option, 'wait', true)
  const reconnectMs = reconnectOf(option)
  if (server === undefined || wait === undefined || reconnectMs === 'wrong') return { reason: 'an option is not valid' }
  // QEMU listens with wait=on unless told otherwise; wait means nothing to a client.
  const shared: Raw = { server, wait: server ? wait : undefined, reconnectMs: reconnectMs || undefined }
  const path = optionText(option, 'path')
  const fd = optionText(option, 'fd')
  if (path !== undefined) {
    const mode = server && context.umask !== undefined ? 0o777 & ~context.umask : undefined
    return { spec: clean({ kind: 'unix', path, mode, ...shared }) }
  }
  if (fd !== undefined) {
    if (!/^\d+$/.test(fd)) return { reason: `fd=${fd} is the name of a descriptor that only QEMU has` }
    return { spec: clean({ kind: 'unix', fd: Number(fd), ...shared }) }
  }
  const port = optionText(option, 'port')
  const host = optionText(option, 'host')
  if (port === undefined || host === undefined) return { reason: 'neither path nor host and port' }
  if (!/^\d+$/.test(port)) return { reason: `port=${port} is not a number` }
  const nodelay = flagOf(option, 'nodelay') ?? negated(flagOf(option, 'delay')) ?? false
  const ipv4 = flagOf(option, 'ipv4')
  const ipv6 = flagOf(option, 'ipv6')
  // Without a name QEMU listens on every address.
  const everywhere = ipv6 === true && ipv4 !== true ? '::' : '0.0.0.0'
  const address = host === '' ? (server ? everywhere : 'localhost') : host
  return { spec: clean({ kind: 'tcp', host: address, port: Number(port), nodelay, ipv4, ipv6, ...shared }) }
}

/** Milliseconds between attempts; `reconnect` in seconds is the older spelling. */
function reconnectOf(option: OptionString): number | undefined | 'wrong' {
  for (const [key, unit] of [
    ['reconnect-ms', 1],
    ['reconnect', 1000],
  ] as const) {
    const text = optionText(option, key)
    if (text !== undefined) return /^\d{1,9}$/.test(text) ? Number(text) * unit : 'wrong'
  }
  return undefined
}

function flagOf(option: OptionString, key: string): boolean | undefined {
  return hasOption(option, key) ? optionBoolean(option, key, false) : undefined
}

function negated(value: boolean | undefined): boolean | undefined {
  return value === undefined ? undefined : !value
}

function clean(raw: Raw): Raw {
  return Object.fromEntries(Object.entries(raw).filter(([, value]) => value !== undefined))
}
