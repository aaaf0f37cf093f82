/**
 * Finds the port of a guest's spice-vdagent and joins it with a clipboard of the host. Part of the library; used by
 * `vmchannel clipboard`.
 */

import type { Duplex } from 'node:stream'
import type { WaitOptions } from '../client/abort.ts'
import { connectSocket } from '../client/connect-socket.ts'
import { ControlClient } from '../client/control-client.ts'
import { findVm } from '../client/find.ts'
import { reachPort } from '../client/reach.ts'
import type { PortRef } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { ClipboardSync, type SyncOptions } from './sync.ts'

export const CLIPBOARD_PORT = 'com.redhat.spice.0'
const CONNECT_MS = 10_000

export interface ClipboardOptions extends SyncOptions {
  /** Name or number of the port; default "com.redhat.spice.0". */
  port?: PortRef | undefined
  /** Path of the control socket of the device process; by default those of this user are searched. */
  control?: string | undefined
  /** Name of the VM; may be left out where there is only one. */
  vm?: string | undefined
  /** Instead of a port of our device: the unix socket that the agent's port leads to. */
  socket?: string | undefined
  /** Instead of both: a stream that is the agent's port. There is no reconnecting then. */
  stream?: Duplex | undefined
}

/** Connects, and does not wait for the agent: `ready()` does. */
export function connectClipboard(options: ClipboardOptions): Promise<ClipboardSync> {
  const { stream, socket } = options
  if (stream) return ClipboardSync.start(() => Promise.resolve(stream), { ...options, reconnect: 0 })
  if (socket !== undefined)
    return ClipboardSync.start(() => connectSocket(socket, { timeout: CONNECT_MS }, 'port'), options)
  return ClipboardSync.start(() => openPort(options), options)
}

async function openPort(options: ClipboardOptions): Promise<Duplex> {
  const limits: WaitOptions = { timeout: CONNECT_MS }
  const { controlSocket, vm } = await findVm(options)
  const ref = options.port ?? CLIPBOARD_PORT
  const client = await ControlClient.connect(controlSocket, limits)
  try {
    const ports = await client.request('port.list', { vm }, limits)
    const found = ports.find(({ port, name }) => port === ref || name === ref)
    if (!found) {
      const names = ports.map(({ port, name }) => name ?? String(port)).join(', ')
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${vm} has no port ${ref}`, {
        hint:
          ref === CLIPBOARD_PORT
            ? `add one with "vmchannel port add attach,name=${CLIPBOARD_PORT}" before the guest starts`
            : `there is: ${names === '' ? 'no port' : names}`,
      })
    }
    return await reachPort(controlSocket, found, limits)
  } finally {
    client.close()
  }
}
