/**
 * Becomes the host's end of a port by whatever door it has: `attach`, or a unix or tcp socket that listens. Used by
 * `vmchannel connect` (which adds ptys) and by the client of the guest agent. Loads nothing native.
 */

import { connect as connectTo, type NetConnectOpts, type Socket } from 'node:net'
import { parseChardevSpec } from '../chardev/spec.ts'
import type { PortInfo } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { wait, type WaitOptions } from './abort.ts'
import { attachPort } from './attach.ts'

export async function reachPort(controlSocket: string, port: PortInfo, options: WaitOptions = {}): Promise<Socket> {
  const what = portWords(port)
  const spec = parseChardevSpec(port.chardev, what)
  if (spec.kind === 'attach') {
    const { socket } = await attachPort(controlSocket, { vm: port.vm, port: port.port }, options)
    return socket
  }
  const known = spec.kind === 'tcp' || (spec.kind === 'unix' && spec.path !== undefined)
  if (!known || spec.server === false)
    throw new VmchannelError('ERR_VMCHANNEL_PORT', `${what} leads to ${port.chardev}: nothing to connect to`, {
      hint: 'this takes ports that lead to attach, or to a unix or tcp socket that listens',
    })
  if (port.hostConnected)
    throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${what} has somebody at ${port.chardev} already`, {
      hint: 'one at a time: end the other connection first',
    })
  if (spec.kind === 'unix') return dial({ path: spec.path! }, what, options)
  const bound = /:(\d+)$/.exec(port.place ?? '')?.[1]
  const host = spec.host === undefined || /^(0\.0\.0\.0|::)?$/.test(spec.host) ? 'localhost' : spec.host
  return dial({ host, port: bound === undefined ? spec.port : Number(bound) }, what, options)
}

/** "port 1 (org.example.0) of vm0". */
export function portWords({ port, name, vm }: PortInfo): string {
  return `port ${port}${name === null ? '' : ` (${name})`} of ${vm}`
}

function dial(target: NetConnectOpts, what: string, options: WaitOptions): Promise<Socket> {
  return wait<Socket>(`connecting to ${what}`, options, (resolve, reject) => {
    const socket = connectTo(target)
    let connected = false
    const failed = (cause: NodeJS.ErrnoException): void =>
      reject(
        new VmchannelError('ERR_VMCHANNEL_CHARDEV', `cannot connect to ${what}: ${cause.message}`, {
          cause,
          hint: 'see "vmchannel port list" for where it leads',
        }),
      )
    socket.once('error', failed).once('connect', () => {
      connected = true
      resolve(socket)
    })
    return () => {
      socket.removeListener('error', failed)
      if (connected) return
      socket.on('error', () => {})
      socket.destroy()
    }
  })
}
