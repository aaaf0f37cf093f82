/**
 * The configuration of `vmchannel serve`: TOML in, checked values out, and back. Flags go over environment over file; the
 * command line has put the first two together before it comes here. Called by cli/serve.ts.
 */

import { parse, stringify, TomlError } from 'smol-toml'
import * as v from 'valibot'
import { escapeOption, nearest } from './chardev/options.ts'
import { VmchannelError } from './errors.ts'
import { printable } from './log.ts'
import { formatPortSpec, parsePortSpec, PORT_ID_MAX } from './port-spec.ts'

export interface ServedVm {
  name: string
  socket?: string
  maxPorts?: number
  queueSize?: number
  vectors?: number
  resizeOrder?: 'cols-rows' | 'rows-cols'
  iommuPlatform?: boolean
  transport?: 'vfio-user' | 'usernet'
  /** In the string form. */
  ports: string[]
}

export interface ServeConfig {
  stateDir?: string
  control?: string
  log?: string
  keeper?: boolean
  memory?: string
  vms: ServedVm[]
}

const text = v.pipe(v.string(), v.minLength(1, 'is empty'))
const whole = (min: number, max: number) =>
  v.pipe(
    v.number(`is not a whole number from ${min} to ${max}`),
    v.check(
      (value: number) => Number.isInteger(value) && value >= min && value <= max,
      `is not a whole number from ${min} to ${max}`,
    ),
  )

const VM_ENTRIES = {
  name: v.optional(
    v.pipe(v.string(), v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/, 'may have letters, digits, "-", "_", "."')),
  ),
  socket: v.optional(text),
  'max-ports': v.optional(whole(1, PORT_ID_MAX + 1)),
  'queue-size': v.optional(whole(2, 32768)),
  vectors: v.optional(v.union([v.literal(0), whole(2, 2048)], 'is neither 0 nor a whole number from 2 to 2048')),
  'resize-order': v.optional(v.picklist(['cols-rows', 'rows-cols'], 'is neither "cols-rows" nor "rows-cols"')),
  'iommu-platform': v.optional(v.boolean()),
  transport: v.optional(v.picklist(['vfio-user', 'usernet'], 'is neither "vfio-user" nor "usernet"')),
  ports: v.optional(
    v.array(v.union([v.string(), v.record(v.string(), v.unknown())], 'is neither a string nor a table')),
  ),
}
const ENTRIES = {
  'state-dir': v.optional(text),
  control: v.optional(text),
  log: v.optional(v.picklist(['error', 'warn', 'info', 'debug'], 'is none of error, warn, info, debug')),
  keeper: v.optional(v.boolean()),
  memory: v.optional(text),
  vm: v.optional(v.array(v.record(v.string(), v.unknown()), 'is not a list of tables: write [[vm]]')),
}
const FILE = v.object(ENTRIES)
const VM = v.object(VM_ENTRIES)

/** Reads the text of a file; `name` is what messages call it. */
export function parseServeConfig(source: string, name: string): ServeConfig {
  const raw = parseToml(source, name)
  checkKeys(raw, Object.keys(ENTRIES), name)
  const file = checked(FILE, raw, name)
  const config: ServeConfig = { vms: (file.vm ?? []).map((table, at) => readVm(table, at, name)) }
  if (file['state-dir'] !== undefined) config.stateDir = file['state-dir']
  if (file.control !== undefined) config.control = file.control
  if (file.log !== undefined) config.log = file.log
  if (file.keeper !== undefined) config.keeper = file.keeper
  if (file.memory !== undefined) config.memory = file.memory
  const names = config.vms.map((vm) => vm.name)
  const twice = names.find((one, at) => names.indexOf(one) !== at)
  if (twice !== undefined) throw usage(`${name}: two VMs are called "${twice}"`, 'give each [[vm]] a name of its own')
  return config
}

function parseToml(source: string, name: string): Record<string, unknown> {
  try {
    return parse(source)
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause
    const [reason] = cause.message.replace(/^Invalid TOML document: /, '').split('\n')
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${name}, line ${cause.line}, column ${cause.column}: ${reason}`, {
      cause,
      hint: 'the file is TOML: key = "value", and [[vm]] before the entries of each VM',
    })
  }
}

function readVm(table: Record<string, unknown>, at: number, name: string): ServedVm {
  const named = typeof table['name'] === 'string' ? `VM "${printable(table['name'])}"` : `[[vm]] number ${at + 1}`
  const place = `${name}, ${named}`
  checkKeys(table, Object.keys(VM_ENTRIES), place)
  const raw = checked(VM, table, place)
  const vm: ServedVm = {
    name: raw.name ?? `vm${at}`,
    ports: (raw.ports ?? []).map((port, index) => readPort(port, `${place}, port ${index + 1}`)),
  }
  if (raw.socket !== undefined) vm.socket = raw.socket
  if (raw['max-ports'] !== undefined) vm.maxPorts = raw['max-ports']
  if (raw['queue-size'] !== undefined) vm.queueSize = raw['queue-size']
  if (raw.vectors !== undefined) vm.vectors = raw.vectors
  if (raw['resize-order'] !== undefined) vm.resizeOrder = raw['resize-order']
  if (raw['iommu-platform'] !== undefined) vm.iommuPlatform = raw['iommu-platform']
  if (raw.transport !== undefined) vm.transport = raw.transport
  return vm
}

/** A table has the words of the string form, and `to` for what stands before the first comma: one grammar for both. */
function readPort(port: string | Record<string, unknown>, place: string): string {
  if (typeof port === 'string') return formatPortSpec(parsePortSpec(port, place))
  const { to, ...options } = port
  if (typeof to !== 'string')
    throw usage(`${place}: it has no "to"`, 'say where it leads, e.g. { to = "unix:/run/vm.sock" }')
  let source = to
  for (const [word, value] of Object.entries(options)) {
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean')
      throw usage(`${place}: ${printable(word)} is neither text nor a number nor true or false`)
    source += `,${escapeOption(word)}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : escapeOption(String(value))}`
  }
  return formatPortSpec(parsePortSpec(source, place))
}

function checkKeys(table: Record<string, unknown>, known: readonly string[], place: string): void {
  for (const key of Object.keys(table)) {
    if (known.includes(key)) continue
    const near = nearest(key, known)
    const list = `there may be: ${known.join(', ')}`
    throw usage(`${place}: unknown entry "${printable(key)}"`, near ? `did you mean "${near}"? ${list}` : list)
  }
}

function checked<S extends v.GenericSchema>(schema: S, value: unknown, place: string): v.InferOutput<S> {
  const result = v.safeParse(schema, value, { abortEarly: true })
  if (result.success) return result.output
  const issue = result.issues[0]
  const path = v.getDotPath(issue)
  const found = typeof issue.input === 'object' ? '' : `, ${printable(JSON.stringify(issue.input) ?? '')},`
  throw usage(`${place}: ${path ?? 'it'}${found} ${printable(issue.message, 200)}`)
}

/** The text of a file that says the same. */
export function formatServeConfig(config: ServeConfig): string {
  const { stateDir, control, log, keeper, memory, vms } = config
  const table: Record<string, unknown> = {}
  if (stateDir !== undefined) table['state-dir'] = stateDir
  if (control !== undefined) table['control'] = control
  if (log !== undefined) table['log'] = log
  if (keeper !== undefined) table['keeper'] = keeper
  if (memory !== undefined) table['memory'] = memory
  table['vm'] = vms.map(
    ({ name, socket, maxPorts, queueSize, vectors, resizeOrder, iommuPlatform, transport, ports }) => ({
      name,
      ...(socket === undefined ? {} : { socket }),
      ...(maxPorts === undefined ? {} : { 'max-ports': maxPorts }),
      ...(queueSize === undefined ? {} : { 'queue-size': queueSize }),
      ...(vectors === undefined ? {} : { vectors }),
      ...(resizeOrder === undefined ? {} : { 'resize-order': resizeOrder }),
      ...(iommuPlatform === undefined ? {} : { 'iommu-platform': iommuPlatform }),
      ...(transport === undefined ? {} : { transport }),
      ports,
    }),
  )
  return `${stringify(table).trimEnd()}\n`
}

function usage(message: string, hint?: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_USAGE', message, hint === undefined ? {} : { hint })
}
