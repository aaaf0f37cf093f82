/**
 * Connects to a control socket, or to the socket of a port of any machine, with an error that says what to do. Used by
 * control-client.ts, attach.ts and what has an option --socket.
 */

import { createConnection, type Socket } from 'node:net'
import { VmchannelError, type ErrorCode } from '../errors.ts'
import { wait, type WaitOptions } from './abort.ts'

const REASONS: Readonly<Record<string, readonly [ErrorCode, string, string]>> = {
  ENOENT: ['ERR_VMCHANNEL_NOT_FOUND', 'there is no such socket', 'is the device process running?'],
  ENOTSOCK: ['ERR_VMCHANNEL_NOT_FOUND', 'this is not a socket', 'name the control socket of a device process'],
  ECONNREFUSED: ['ERR_VMCHANNEL_NOT_FOUND', 'its device process is gone', 'start it again; the socket is a leftover'],
  EAGAIN: ['ERR_VMCHANNEL_CONTROL', 'too many others wait for it', 'try again later'],
  EACCES: [
    'ERR_VMCHANNEL_CONTROL',
    'no permission',
    'only the user who started the device process, and root, may connect',
  ],
}

/** The same, where the socket is that of a port, of whatever virtual machine. */
const PORT_REASONS: typeof REASONS = {
  ...REASONS,
  ENOENT: ['ERR_VMCHANNEL_NOT_FOUND', 'there is no such socket', 'is the machine running, and its port at this path?'],
  ENOTSOCK: ['ERR_VMCHANNEL_NOT_FOUND', 'this is not a socket', 'name the socket that the port leads to'],
  ECONNREFUSED: ['ERR_VMCHANNEL_NOT_FOUND', 'nobody listens there', 'has its machine ended? The socket is a leftover'],
  EACCES: ['ERR_VMCHANNEL_CONTROL', 'no permission', 'the user who started the machine, or root, may connect'],
}

export function connectSocket(path: string, options: WaitOptions, of: 'control' | 'port' = 'control'): Promise<Socket> {
  return wait<Socket>(`connecting to ${path}`, options, (resolve, reject) => {
    const socket = createConnection({ path })
    let connected = false
    socket.once('connect', () => {
      connected = true
      resolve(socket)
    })
    const failed = (cause: NodeJS.ErrnoException): void => {
      const [code, why, hint] = (of === 'port' ? PORT_REASONS : REASONS)[cause.code ?? ''] ?? [
        'ERR_VMCHANNEL_CONTROL',
        cause.message,
        undefined,
      ]
      reject(
        new VmchannelError(code, `cannot connect to ${path}: ${why}`, hint === undefined ? { cause } : { cause, hint }),
      )
    }
    socket.once('error', failed)
    return () => {
      socket.removeListener('error', failed)
      if (connected) return
      socket.on('error', () => {})
      socket.destroy()
    }
  })
}
