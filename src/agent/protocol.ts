/**
 * What qemu-guest-agent is asked and answers, as far as it is used here: names, arguments and results as its schema has
 * them. The guest is not to be believed: `shape` checks what a result is used for.
 */

import { VmchannelError } from '../errors.ts'
import { cut, escapeLine } from '../escape.ts'

/** The port that guests expect their agent on. */
export const AGENT_PORT = 'org.qemu.guest_agent.0'

export interface AgentCommand {
  name: string
  enabled: boolean
}

export interface AgentInfo {
  version: string
  commands: AgentCommand[]
}

/** As /etc/os-release of the guest says, with its kernel; fields that the guest does not know are missing. */
export interface GuestOsInfo {
  id?: string
  name?: string
  'pretty-name'?: string
  version?: string
  'version-id'?: string
  machine?: string
  'kernel-release'?: string
  'kernel-version'?: string
  variant?: string
  'variant-id'?: string
}

export interface GuestUser {
  user: string
  'login-time': number
  domain?: string
}

export interface GuestInterface {
  name: string
  'hardware-address'?: string
  'ip-addresses'?: { 'ip-address': string; 'ip-address-type': string; prefix: number }[]
}

export interface GuestFileSystem {
  name: string
  mountpoint: string
  type: string
  'used-bytes'?: number
  'total-bytes'?: number
}

export const OS_INFO: Shape = {
  ...{ 'id?': 'string', 'name?': 'string', 'pretty-name?': 'string', 'version?': 'string', 'version-id?': 'string' },
  ...{ 'machine?': 'string', 'kernel-release?': 'string', 'kernel-version?': 'string', 'variant?': 'string' },
  'variant-id?': 'string',
}
export const USER: Shape = { user: 'string', 'login-time': 'number', 'domain?': 'string' }
const ADDRESS: Shape = { 'ip-address': 'string', 'ip-address-type': 'string', prefix: 'count' }
export const INTERFACE: Shape = {
  ...{ name: 'string', 'hardware-address?': 'string' },
  'ip-addresses?': [ADDRESS],
}
export const FILE_SYSTEM: Shape = {
  ...{ name: 'string', mountpoint: 'string', type: 'string', 'used-bytes?': 'number', 'total-bytes?': 'number' },
}

export type FreezeStatus = 'thawed' | 'frozen'

export type Kind = 'string' | 'boolean' | 'number' | 'integer' | 'count'

/** Fields and what they are; a name with ? may be missing. In brackets: a list of objects with these fields. */
export type Shape = Readonly<{ [name: string]: Kind | readonly [Shape] }>

const KINDS: Readonly<Record<Kind, (value: unknown) => boolean>> = {
  string: (value: unknown) => typeof value === 'string',
  boolean: (value: unknown) => typeof value === 'boolean',
  /** Finite: JSON has 1e999. */
  number: (value: unknown) => Number.isFinite(value),
  /** A number that is exact. */
  integer: (value: unknown) => Number.isSafeInteger(value),
  count: (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0,
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function number(what: string, value: unknown, expected: 'number' | 'integer' | 'count'): number {
  if (!KINDS[expected](value)) throw nonsense(what, `it is no ${expected}`)
  return value as number
}

/** The value as an object with these fields; others are left as they are, and are nobody's but who prints them. */
// oxlint-disable-next-line no-unnecessary-type-parameters
export function shape<T>(what: string, value: unknown, fields: Shape): T {
  if (!isObject(value)) throw nonsense(what, 'it is no object')
  const result = { ...value }
  for (const [key, expected] of Object.entries(fields)) {
    const name = key.replace('?', '')
    if (!Object.hasOwn(value, name)) {
      if (name === key) throw nonsense(what, `${name} is missing`)
      continue
    }
    const found = value[name]
    if (typeof expected !== 'string') result[name] = list(`${what}, ${name}`, found, expected[0])
    else if (!KINDS[expected](found)) throw nonsense(what, `${name} is no ${expected}`)
  }
  return result as T
}

export function list<T>(what: string, value: unknown, fields: Shape): T[] {
  if (!Array.isArray(value)) throw nonsense(what, 'it is no list')
  return value.map((one) => shape<T>(what, one, fields))
}

export function nonsense(what: string, why: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_AGENT', `the guest agent's answer to ${what} makes no sense: ${why}`)
}

/** An error that the agent answered with, as one of this house. */
export function refusal(what: string, error: unknown): VmchannelError {
  const { class: name, desc } = isObject(error) ? error : {}
  const said = printable(typeof desc === 'string' ? desc : 'no reason given')
  if (name === 'CommandNotFound') {
    const disabled = /disabled/i.test(said)
    return new VmchannelError(
      'ERR_VMCHANNEL_AGENT',
      `${what}: ${disabled ? 'switched off in this guest' : 'the guest agent does not know it'} (${said})`,
      {
        hint: disabled
          ? 'options --allow-rpcs and --block-rpcs of qemu-ga in the guest decide'
          : '"vmchannel agent info" lists what it knows',
        cause: error,
      },
    )
  }
  const missing = /No such file or directory/i.test(said)
  return new VmchannelError(missing ? 'ERR_VMCHANNEL_NOT_FOUND' : 'ERR_VMCHANNEL_AGENT', `${what}: ${said}`, {
    cause: error,
  })
}

/** Whether the agent refused because the command is disabled: by its options, or while file systems are frozen. */
export function isDisabled(error: unknown): boolean {
  const { class: name, desc } = error instanceof VmchannelError && isObject(error.cause) ? error.cause : {}
  return name === 'CommandNotFound' && typeof desc === 'string' && /disabled/i.test(desc)
}

export function frozen(what: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_AGENT', `${what}: not while the guest's file systems are frozen`, {
    hint: '"vmchannel agent fsthaw" ends that',
  })
}

/** The guest's words on one line. */
export function printable(text: string, max = 500): string {
  const line = escapeLine(
    cut(text, 2 * max)
      .trim()
      .replaceAll(/\s+/g, ' '),
  )
  return cut(line, max)
}
