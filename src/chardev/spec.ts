/**
 * What a back end can be told: one type and one table of options per kind. Strings and objects go through the same
 * checks; whatever passes here the openers may believe. Called by port-spec.ts and the registry.
 */

import {
  checkFields,
  escapeOption,
  flag,
  formatOptions,
  integer,
  isRecord,
  mode,
  nearest,
  quote,
  readOption,
  seconds,
  splitOptions,
  text,
  usage,
  type Field,
  type Raw,
} from './options.ts'

export interface UnixSpec {
  kind: 'unix'
  /** Either a path, or `fd`. */
  path?: string
  /** A socket that the device process was started with: listening, or with server=off connected. */
  fd?: number
  /** Listen (the default) or connect. */
  server?: boolean
  /** Opening waits for the first peer. */
  wait?: boolean
  /** Connect again after this pause at most; 0 does not. */
  reconnectMs?: number
  /** Permission bits of the socket, 0600 unless told otherwise. */
  mode?: number
  /** How long a peer that has ended its input is still written to when nothing moves. */
  halfCloseMs?: number
}

export interface TcpSpec {
  kind: 'tcp'
  /** The loopback address unless told otherwise. */
  host?: string
  port: number
  server?: boolean
  wait?: boolean
  /** On unless told otherwise. */
  nodelay?: boolean
  ipv4?: boolean
  ipv6?: boolean
  reconnectMs?: number
  halfCloseMs?: number
  /** An idle peer that answers no probe for this long is gone; 120 s unless told otherwise, 0 does not look. */
  keepaliveMs?: number
}

export interface PtySpec {
  kind: 'pty'
  /** A symbolic link to the pty's name. */
  path?: string
}

export interface StdioSpec {
  kind: 'stdio'
  /** Whether Ctrl-C and the like are signals rather than bytes; on unless told otherwise. */
  signal?: boolean
}

export interface FileSpec {
  kind: 'file'
  path: string
  append?: boolean
  /** Read as the input of the port. */
  inputPath?: string
}

export interface PipeSpec {
  kind: 'pipe'
  /** With PATH.in and PATH.out those two, else PATH itself. */
  path: string
}

export interface NullSpec {
  kind: 'null'
}

/** Connections handed over by the owner of the device: streams of a program, `vmchannel connect`. */
export interface AttachSpec {
  kind: 'attach'
  halfCloseMs?: number
}

export type ChardevSpec = UnixSpec | TcpSpec | PtySpec | StdioSpec | FileSpec | PipeSpec | NullSpec | AttachSpec
export type ChardevKind = ChardevSpec['kind']

const DAY_MS = 86_400_000
/** Bytes of sun_path without its NUL. */
const UNIX_PATH_MAX = 107

const path = text('a path', (value) => value !== '' && !value.includes('\0') && Buffer.byteLength(value) < 4096)
const socketPath = text(
  `a path of at most ${UNIX_PATH_MAX} bytes, the limit of unix sockets`,
  (value) => path.check(value) && Buffer.byteLength(value) <= UNIX_PATH_MAX,
)
const host = text('a host name or address', (value) => /^[^\s\0/]{0,253}$/.test(value))

const pathField: Field = { key: 'path', word: 'path', type: path, required: true }
const halfClose: Field = { key: 'halfCloseMs', word: 'half-close-ms', type: integer(0, DAY_MS, ' ms') }
const socketFields: readonly Field[] = [
  { key: 'server', word: 'server', type: flag },
  { key: 'wait', word: 'wait', type: flag },
  { key: 'reconnectMs', word: 'reconnect-ms', type: integer(0, DAY_MS, ' ms') },
  { key: 'reconnectMs', word: 'reconnect', type: seconds(DAY_MS / 1000), alias: true },
  halfClose,
]

/** The options of each kind; the first field is what stands behind the colon. */
const KINDS: Readonly<Record<ChardevKind, readonly Field[]>> = {
  unix: [
    { key: 'path', word: 'path', type: socketPath },
    ...socketFields,
    { key: 'mode', word: 'mode', type: mode },
    { key: 'fd', word: 'fd', type: integer(3, 65535) },
  ],
  tcp: [
    { key: 'host', word: 'host', type: host },
    { key: 'port', word: 'port', type: integer(0, 65535), required: true },
    ...socketFields,
    { key: 'nodelay', word: 'nodelay', type: flag },
    { key: 'ipv4', word: 'ipv4', type: flag },
    { key: 'ipv6', word: 'ipv6', type: flag },
    { key: 'keepaliveMs', word: 'keepalive-ms', type: integer(0, DAY_MS, ' ms') },
  ],
  pty: [{ key: 'path', word: 'path', type: path }],
  stdio: [{ key: 'signal', word: 'signal', type: flag }],
  file: [
    pathField,
    { key: 'append', word: 'append', type: flag },
    { key: 'inputPath', word: 'input-path', type: path },
  ],
  pipe: [pathField],
  null: [],
  attach: [halfClose],
}

/** Words that people use for a kind. */
const ALIASES: Readonly<Record<string, ChardevKind>> = { fifo: 'pipe', stream: 'attach' }
export const CHARDEV_KINDS: readonly string[] = Object.keys(KINDS)

/** The kind that a word stands for; throws with a suggestion. */
function kindOf(word: unknown, argument: string): ChardevKind {
  if (typeof word === 'string') {
    if (Object.hasOwn(KINDS, word)) return word as ChardevKind
    if (Object.hasOwn(ALIASES, word)) return ALIASES[word]!
  }
  const list = `a port leads to one of: ${CHARDEV_KINDS.join(', ')}`
  const near = typeof word === 'string' ? nearest(word, [...CHARDEV_KINDS, ...Object.keys(ALIASES)]) : undefined
  let hint = near ? `did you mean "${near}"? ${list}` : list
  if (word === 'socket') hint = 'write unix:/path or tcp:host:port'
  else if (typeof word === 'string' && word.startsWith('/')) hint = `write unix:${word}, file:${word} or pipe:${word}`
  throw usage(`${argument}: ${quote(word)} is no kind of back end`, hint)
}

/** Reads the head of an option string, `kind` or `kind:rest`; returns the raw spec and the fields that may follow. */
export function parseChardevHead(head: string, argument: string): { raw: Raw; fields: readonly Field[] } {
  const colon = head.indexOf(':')
  const kind = kindOf(colon === -1 ? head : head.slice(0, colon), argument)
  const fields = KINDS[kind]
  const raw: Raw = { kind }
  const rest = colon === -1 ? '' : head.slice(colon + 1)
  if (rest === '') return { raw, fields }
  if (fields.some((field) => rest.startsWith(`${field.word}=`))) readOption(rest, fields, raw, argument, kind)
  else if (kind === 'tcp') parseHostPort(rest, raw, argument)
  else if (fields[0]?.key === 'path') readOption(`path=${rest}`, fields, raw, argument, kind)
  else throw usage(`${argument}: ${kind} takes nothing behind the colon, found ${quote(rest)}`, `write ${kind}`)
  return { raw, fields }
}

/** host:port, [v6]:port, :port or port. */
function parseHostPort(rest: string, raw: Raw, argument: string): void {
  const match = /^(?:\[([^\]]*)\]:|([^:]*):)?(\d+)$/.exec(rest)
  if (!match)
    throw usage(`${argument}: ${quote(rest)} is not HOST:PORT`, 'write e.g. tcp:127.0.0.1:4555 or tcp:[::1]:4555')
  const name = match[1] ?? match[2]
  if (name) readOption(`host=${name}`, KINDS.tcp, raw, argument, 'tcp')
  readOption(`port=${match[3]}`, KINDS.tcp, raw, argument, 'tcp')
}

/** Reads a back end alone: `unix:/run/vm.sock,server=on`. */
export function parseChardevSpec(source: string, argument: string): ChardevSpec {
  const [head, ...options] = splitOptions(source) as [string, ...string[]]
  const { raw, fields } = parseChardevHead(head, argument)
  for (const option of options) readOption(option, fields, raw, argument, String(raw['kind']))
  return checkChardevSpec(raw, argument)
}

/** Checks an object of a program, or what was read from a string; returns a copy of exactly the known fields. */
export function checkChardevSpec(value: unknown, argument: string): ChardevSpec {
  if (!isRecord(value))
    throw usage(`${argument}: ${quote(value)} is not a back end`, 'e.g. { kind: "unix", path: "/run/vm.sock" }')
  const { kind: word, ...rest } = value
  const kind = kindOf(word, argument)
  const spec = { kind, ...checkFields(rest, KINDS[kind], argument, kind) } as ChardevSpec
  if (spec.kind === 'unix' || spec.kind === 'tcp') checkSocket(spec, argument)
  return spec
}

function checkSocket(spec: UnixSpec | TcpSpec, argument: string): void {
  const listens = spec.server ?? true
  if (listens && spec.reconnectMs)
    throw usage(`${argument}: reconnect is for a back end that connects`, 'add server=off, or leave reconnect out')
  if (!listens && spec.wait) throw usage(`${argument}: wait=on is for a back end that listens`, 'leave wait out')
  if (spec.kind === 'unix') {
    if ((spec.path === undefined) === (spec.fd === undefined))
      throw usage(`${argument}: unix needs path, or fd, and not both`, 'give a path, e.g. unix:/run/vm.sock')
    if (spec.fd !== undefined && (spec.mode !== undefined || spec.reconnectMs))
      throw usage(`${argument}: mode and reconnect do not go with fd`, 'leave them out')
    if (!listens && spec.mode !== undefined)
      throw usage(`${argument}: mode is for a back end that listens`, 'leave mode out')
    return
  }
  if (spec.ipv4 === false && spec.ipv6 === false)
    throw usage(`${argument}: ipv4 and ipv6 are both off`, 'leave one of them on')
  if (!listens && spec.port === 0) throw usage(`${argument}: port 0 is for a back end that listens`, 'name the port')
}

/** The string form; `parseChardevSpec` reads it back to the same. */
export function formatChardevSpec(spec: ChardevSpec): string {
  const raw = spec as unknown as Raw
  const fields = KINDS[spec.kind]
  if (spec.kind === 'tcp') {
    const name = spec.host ?? ''
    return `tcp:${escapeOption(name.includes(':') ? `[${name}]` : name)}:${spec.port}${formatOptions(raw, fields, ['host', 'port'])}`
  }
  const first = fields[0]
  const head = first?.key === 'path' ? (raw['path'] as string | undefined) : undefined
  // A path that reads like an option would be taken for one.
  if (head === undefined || fields.some((field) => head.startsWith(`${field.word}=`)))
    return spec.kind + formatOptions(raw, fields)
  return `${spec.kind}:${escapeOption(head)}${formatOptions(raw, fields, ['path'])}`
}
