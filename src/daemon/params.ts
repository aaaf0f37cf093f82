/**
 * What requests and the configuration may contain. Port specifications are checked by port-spec.ts, which knows better
 * words; everything else here. Called by methods.ts and main.ts.
 */

import * as v from 'valibot'
import { VmchannelError } from '../errors.ts'
import { printable } from '../log.ts'
import type { DaemonConfig, Method } from './protocol.ts'

const VM_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/

const vmName = v.pipe(v.string(), v.regex(VM_NAME, 'letters, digits, "-", "_", "." and at most 64 of them'))
const path = v.pipe(v.string(), v.minLength(1), v.maxLength(4096))
const whole = (min: number, max: number): v.GenericSchema<number> =>
  v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max))
const spec = v.union([v.pipe(v.string(), v.maxLength(16 << 10)), v.record(v.string(), v.unknown())])
const portRef = v.union([whole(0, 510), v.pipe(v.string(), v.minLength(1), v.maxLength(255))])
const vm = v.optional(vmName)

const vmOptions = {
  name: vm,
  socket: v.optional(path),
  maxPorts: v.optional(v.number()),
  queueSize: v.optional(v.number()),
  vectors: v.optional(v.union([v.literal(0), whole(2, 2048)])),
  resizeOrder: v.optional(v.picklist(['cols-rows', 'rows-cols'])),
  iommuPlatform: v.optional(v.boolean()),
  transport: v.optional(v.picklist(['vfio-user', 'usernet'])),
}

/** One schema for each method's parameters. */
export const PARAMS: { readonly [M in Method]: v.GenericSchema } = {
  hello: v.strictObject({}),
  'vm.list': v.strictObject({}),
  'vm.add': v.strictObject({ ...vmOptions, ports: v.optional(v.array(spec)) }),
  'vm.remove': v.strictObject({ vm }),
  'port.list': v.strictObject({ vm }),
  'port.add': v.strictObject({ vm, spec }),
  'port.remove': v.strictObject({ vm, port: portRef }),
  'port.resize': v.strictObject({ vm, port: portRef, cols: v.number(), rows: v.number() }),
  'port.stats': v.strictObject({ vm, port: v.optional(portRef) }),
  'port.attach': v.strictObject({ vm, port: portRef }),
  subscribe: v.strictObject({ vm }),
  stop: v.strictObject({}),
}

const config = v.strictObject({
  stateDir: v.optional(path),
  controlSocket: v.optional(path),
  vms: v.array(v.strictObject({ ...vmOptions, ports: v.array(spec) })),
  exitWith: v.picklist(['vmm', 'parent', 'never']),
  connectTimeoutMs: v.optional(whole(1, 86_400_000)),
  logLevel: v.picklist(['error', 'warn', 'info', 'debug']),
  logFormat: v.optional(v.picklist(['text', 'json'])),
  terminal: v.optional(v.strictObject({ input: whole(0, 1023), output: whole(0, 1023) })),
  lifeline: v.optional(whole(3, 1023)),
  parent: v.optional(whole(3, 1023)),
  keeper: v.optional(
    v.strictObject({ channel: whole(3, 1 << 20), page: whole(3, 1 << 20), pid: whole(1, 2 ** 31 - 1) }),
  ),
})

/** Throws VmchannelError with the place of the first thing that is wrong. */
export function checked(schema: v.GenericSchema, value: unknown, what: string): unknown {
  const result = v.safeParse(schema, value, { abortEarly: true })
  if (result.success) return result.output
  const issue = result.issues[0]
  const place = v.getDotPath(issue)
  throw new VmchannelError(
    'ERR_VMCHANNEL_USAGE',
    `${what}${place ? `, ${place}` : ''}: ${printable(issue.message, 300)}`,
  )
}

export function checkConfig(text: string): DaemonConfig {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', 'standard input: this is no JSON object', {
      cause,
      hint: 'the device process is started by vmchannel, which writes its configuration there',
    })
  }
  return checked(config, value, 'configuration') as DaemonConfig
}
