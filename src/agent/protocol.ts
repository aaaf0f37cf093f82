/**
 * What qemu-guest-agent is asked and answers, as far as it is used here: names, arguments and results as its schema has
 * them. The guest is not to be believed: `shape` checks what a result is used for.
 */

import { VmchannelError } from '../errors.ts'

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

export type FreezeStatus = 'thawed' | 'frozen'

/** Fields and their types; a name with ? may be missing. */
export type Shape = Readonly<Record<string, 'string' | 'number' | 'boolean' | 'object'>>

/** The value as an object with these fields. */
// oxlint-disable-next-line no-unnecessary-type-parameters
export function shape<T>(what: string, value: unknown, fields: Shape): T {
  const record = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  for (const [key, kind] of Object.entries(fields)) {
    const name = key.replace('?', '')
    const found = record?.[name]
    if (found === undefined && name !== key) continue
    // oxlint-disable-next-line valid-typeof
    if (typeof found !== kind || found === null) throw nonsense(what, `${name} is no ${kind}`)
  }
  return value as T
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
  const { class: kind, desc } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  const said = printable(typeof desc === 'string' ? desc : 'no reason given')
  if (kind === 'CommandNotFound') {
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
  const { class: kind, desc } = (error instanceof VmchannelError && error.cause ? error.cause : {}) as Record<
    string,
    unknown
  >
  return kind === 'CommandNotFound' && /disabled/i.test(String(desc))
}

export function frozen(what: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_AGENT', `${what}: not while the guest's file systems are frozen`, {
    hint: '"vmchannel agent fsthaw" ends that',
  })
}

/** The guest's words on one line, without control characters. */
export function printable(text: string, max = 500): string {
  return (
    text
      .trim()
      // oxlint-disable-next-line no-control-regex
      .replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
      .slice(0, max)
  )
}
