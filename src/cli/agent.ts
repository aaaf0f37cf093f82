/** `vmchannel agent ping|info|fsfreeze|fsthaw|fsstatus|shutdown|call`. */

import type { GuestAgent } from '../agent/guest-agent.ts'
import { VmchannelError } from '../errors.ts'
import { escapeJson } from '../escape.ts'
import { timeoutMs, withAgent } from './agent-connect.ts'
import { print, printJson, say } from './print.ts'
import { definitions } from './text.ts'
import type { Run } from './table.ts'

export const agentPing: Run = ({ options }) =>
  withAgent(options, async (agent, signal) => {
    const started = performance.now()
    await agent.ping({ signal })
    const ms = Number((performance.now() - started).toFixed(1))
    if (options['json']) printJson({ ms })
    else say(`The guest's agent answers after ${ms} ms.`)
  })

export const agentInfo: Run = ({ options }) =>
  withAgent(options, async (agent, signal) => print(await agentText(agent, { signal }, options['json'] === true)))

/** What is known of the agent and its guest: a table, or a line of JSON. */
export async function agentText(agent: GuestAgent, limits: { signal?: AbortSignal }, json: boolean): Promise<string> {
  const { version, commands } = await agent.info(limits)
  const system = await unless(agent.osInfo(limits))
  const hostName = await unless(agent.hostName(limits))
  const users = await unless(agent.users(limits))
  const interfaces = await unless(agent.interfaces(limits))
  const fileSystems = await unless(agent.fileSystems(limits))
  if (json) return `${escapeJson({ agent: version, system, hostName, users, interfaces, fileSystems, commands })}\n`
  const addresses = interfaces?.flatMap((one) => one['ip-addresses'] ?? []).map((one) => one['ip-address'])
  const off = commands.filter(({ enabled }) => !enabled).map(({ name }) => name)
  const rows: [string, string][] = [
    ['agent', `qemu-guest-agent ${version}, ${commands.length - off.length} commands`],
    ['host name', hostName ?? 'unknown'],
    ['system', system?.['pretty-name'] ?? system?.name ?? 'unknown'],
    ['kernel', system?.['kernel-release'] ?? 'unknown'],
    ['addresses', addresses?.join(', ') || 'none'],
    ['users', users?.map(({ user }) => user).join(', ') || 'none'],
    ['file systems', fileSystems?.map(({ mountpoint, type }) => `${mountpoint} (${type})`).join(', ') || 'unknown'],
    ['commands', commands.flatMap(({ name, enabled }) => (enabled ? [name] : [])).join(' ')],
  ]
  if (off.length > 0) rows.push(['switched off', off.join(' ')])
  return `${definitions(rows, 100)}\n`
}

export const agentFreeze: Run = ({ args, options }) =>
  withAgent(options, async (agent, signal) => {
    const frozen = await agent.fsFreeze(args.length > 0 ? args : undefined, limits(options, signal))
    if (options['json']) printJson({ frozen })
    else say(`${count(frozen)} of the guest ${frozen === 1 ? 'is' : 'are'} frozen; "vmchannel agent fsthaw" ends that.`)
  })

export const agentThaw: Run = ({ options }) =>
  withAgent(options, async (agent, signal) => {
    const thawed = await agent.fsThaw(limits(options, signal))
    if (options['json']) printJson({ thawed })
    else say(`${count(thawed)} of the guest ${thawed === 1 ? 'is' : 'are'} thawed.`)
  })

export const agentStatus: Run = ({ options }) =>
  withAgent(options, async (agent, signal) => {
    const status = await agent.fsStatus({ signal })
    if (options['json']) printJson({ status })
    else print(`${status}\n`)
  })

export const agentShutdown: Run = ({ options }) =>
  withAgent(options, async (agent, signal) => {
    const mode = options['mode'] as Parameters<GuestAgent['shutdown']>[0]
    await agent.shutdown(mode, limits(options, signal))
    if (options['json']) printJson({ mode })
    else say('The guest has been asked.')
  })

export const agentCall: Run = ({ args, options }) => {
  const data = jsonObject(args[1])
  return withAgent(options, async (agent, signal) => {
    printJson(await agent.call(args[0]!, data, limits(options, signal)))
  })
}

function jsonObject(text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {}
  let value: unknown
  let why = 'it is no object'
  try {
    value = JSON.parse(text)
  } catch (error) {
    why = (error as Error).message
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `ARGUMENTS: "${text}" is no JSON object: ${why}`, {
    hint: `e.g. '{"path":"/etc/hostname"}'`,
  })
}

/** What an agent may not know, or may not tell. */
async function unless<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work
  } catch (error) {
    if (error instanceof VmchannelError && /_(AGENT|NOT_FOUND)$/.test(error.code)) return null
    throw error
  }
}

function limits(
  options: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): { signal: AbortSignal; timeout?: number } {
  const timeout = timeoutMs(options)
  return timeout === undefined ? { signal } : { signal, timeout }
}

function count(systems: number): string {
  return `${systems} file system${systems === 1 ? '' : 's'}`
}
