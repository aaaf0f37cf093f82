/** What QEMU says over its machine protocol, as far as it is used here. */

import { VmchannelError } from '../errors.ts'

export interface QmpEvent {
  event: string
  data: Record<string, unknown>
  /** Milliseconds since the epoch, by QEMU's clock. */
  time: number
}

/** Who is at the other end of a VNC connection. On a unix socket both are empty: QEMU does not tell them apart. */
export interface VncClient {
  host: string
  service: string
}

export interface VncServer {
  /** QEMU's id of the display. */
  id: string
  clients: VncClient[]
}

export function vncClient(value: unknown): VncClient {
  const { host, service } = record(value)
  return { host: typeof host === 'string' ? host : '', service: typeof service === 'string' ? service : '' }
}

/** Result of query-vnc-servers. */
export function vncServers(value: unknown): VncServer[] {
  if (!Array.isArray(value))
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', 'QMP query-vnc-servers: the answer is no list')
  return value.map((one) => {
    const { id, clients } = record(one)
    return { id: String(id), clients: Array.isArray(clients) ? clients.map(vncClient) : [] }
  })
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
