/**
 * Finds a guest's agent and greets it: on a port of our device, on a unix socket (any virtio-serial port of any VMM), or on
 * a stream. Part of the library; used by `vmchannel agent` and `vmchannel screenlock`.
 */

import type { Duplex } from 'node:stream'
import type { WaitOptions } from '../client/abort.ts'
import { attachPort } from '../client/attach.ts'
import { connectSocket } from '../client/connect-socket.ts'
import { ControlClient } from '../client/control-client.ts'
import { findVm } from '../client/find.ts'
import { portWords, reachPort } from '../client/reach.ts'
import type { PortInfo, PortRef } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { AgentChannel } from './channel.ts'
import { GuestAgent } from './guest-agent.ts'
import { AGENT_PORT } from './protocol.ts'
import type { OpenSide } from './transfer.ts'

const GREETING_MS = 10_000

export interface AgentOptions extends WaitOptions {
  /** Name or number of the port; default "org.qemu.guest_agent.0". */
  port?: PortRef | undefined
  /** Path of the control socket of the device process; by default those of this user are searched. */
  control?: string | undefined
  /** Name of the VM; may be left out where there is only one. */
  vm?: string | undefined
  /** Instead of a port of our device: the unix socket that the agent's port leads to. */
  socket?: string | undefined
  /** Instead of both: a stream that is the agent's port. */
  stream?: Duplex | undefined
}

/**
 * Connects to the agent and waits until it answers, 10 s at most where `timeout` says nothing else. An agent that only
 * starts meanwhile is fine.
 */
export async function connectAgent(options: AgentOptions = {}): Promise<GuestAgent> {
  const limits = { signal: options.signal, timeout: options.timeout ?? GREETING_MS }
  if (options.stream) return new GuestAgent(await greet(options.stream, limits, 'the stream'))
  if (options.socket !== undefined) {
    const stream = await connectSocket(options.socket, limits, 'port')
    return new GuestAgent(await greet(stream, limits, options.socket))
  }
  const { controlSocket, vm } = await findVm(options)
  const client = await ControlClient.connect(controlSocket, limits)
  try {
    const ref = options.port ?? AGENT_PORT
    const port = await find(client, vm, ref)
    const stream = await reachPort(controlSocket, port, limits)
    const state = async (): Promise<PortInfo> => (await client.request('port.stats', { vm, port: ref }, limits))[0]!
    const channel = await greet(stream, limits, portWords(port), state)
    return new GuestAgent(channel, sideOf(controlSocket, vm))
  } finally {
    client.close()
  }
}

async function find(client: ControlClient, vm: string, ref: PortRef): Promise<PortInfo> {
  const ports = await client.request('port.list', { vm }, { timeout: GREETING_MS })
  const found = ports.find(({ port, name }) => port === ref || name === ref)
  if (found) return found
  const names = ports.map(({ port, name }) => name ?? String(port)).join(', ')
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${vm} has no port ${ref}`, {
    hint:
      ref === AGENT_PORT
        ? `add one with "vmchannel port add attach,name=${AGENT_PORT}"; there ${names === '' ? 'is no port' : `is: ${names}`}`
        : `there is: ${names === '' ? 'no port' : names}`,
  })
}

async function greet(
  stream: Duplex,
  options: WaitOptions,
  where: string,
  state?: () => Promise<PortInfo>,
): Promise<AgentChannel> {
  try {
    return await AgentChannel.open(stream, options)
  } catch (cause) {
    if (!(cause instanceof VmchannelError) || cause.code !== 'ERR_VMCHANNEL_TIMEOUT') throw cause
    const port = await state?.().catch(() => undefined)
    if (port && !port.guestOpen)
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `no guest agent: nothing in the guest has ${where} open`, {
        hint: 'is the package qemu-guest-agent installed there, and its service running?',
        cause,
      })
    const who = port ? `${where} is open in the guest, but no agent answers` : `no guest agent answers on ${where}`
    throw new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `${who} within ${options.timeout} ms`, {
      hint: port
        ? 'it may be busy or stopped, or what has the port open is another program'
        : 'is the guest up, with qemu-guest-agent on this port?',
      cause,
    })
  }
}

/** Ports for files: attach, under a name of their own. */
function sideOf(controlSocket: string, vm: string): OpenSide {
  return async (name, options) => {
    const client = await ControlClient.connect(controlSocket, options)
    try {
      const { port } = await client.request('port.add', { vm, spec: `attach,name=${name}` }, options)
      const remove = async (): Promise<void> => {
        await client.request('port.remove', { vm, port }, { timeout: GREETING_MS }).catch(() => {})
        client.close()
      }
      try {
        const { socket } = await attachPort(controlSocket, { vm, port }, options)
        return { stream: socket, remove }
      } catch (error) {
        await remove()
        throw error
      }
    } catch (error) {
      client.close()
      throw error
    }
  }
}
