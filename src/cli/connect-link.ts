/** Reaches a port from the host side, whatever it leads to. Called by connect.ts. */

import { closeSync, constants, openSync } from 'node:fs'
import { connect as connectTo, type NetConnectOpts, type Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { ReadStream, WriteStream } from 'node:tty'
import { attachPort } from '../client/attach.ts'
import { parseChardevSpec } from '../chardev/spec.ts'
import type { PortInfo } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { setTerminalSize } from '../ffi/tty.ts'

export interface Link {
  readable: Readable
  writable: Writable
  /** Where the far end takes the size of a terminal by itself. */
  resize?: (cols: number, rows: number) => void
  close(): void
}

export async function linkToPort(controlSocket: string, port: PortInfo): Promise<Link> {
  const what = `port ${port.port}${port.name === null ? '' : ` (${port.name})`} of ${port.vm}`
  const spec = parseChardevSpec(port.chardev, what)
  if (spec.kind === 'attach') {
    const { socket } = await attachPort(controlSocket, { vm: port.vm, port: port.port })
    return socketLink(socket)
  }
  if (spec.kind === 'pty' && port.place !== null) return ptyLink(port.place)
  const known = spec.kind === 'tcp' || (spec.kind === 'unix' && spec.path !== undefined)
  if (!known || spec.server === false)
    throw new VmchannelError('ERR_VMCHANNEL_PORT', `${what} leads to ${port.chardev}: nothing to connect to`, {
      hint: 'connect takes ports that lead to attach, pty, or a unix or tcp socket that listens',
    })
  if (port.hostConnected)
    throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${what} has somebody at ${port.chardev} already`, {
      hint: 'one at a time: end the other connection first',
    })
  if (spec.kind === 'unix') return socketLink(await dial({ path: spec.path! }, what))
  const bound = /:(\d+)$/.exec(port.place ?? '')?.[1]
  const host = spec.host === undefined || /^(0\.0\.0\.0|::)?$/.test(spec.host) ? 'localhost' : spec.host
  return socketLink(await dial({ host, port: bound === undefined ? spec.port : Number(bound) }, what))
}

function dial(target: NetConnectOpts, what: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTo(target)
    socket.once('connect', () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
    socket.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new VmchannelError('ERR_VMCHANNEL_CHARDEV', `cannot connect to ${what}: ${cause.message}`, {
          cause,
          hint: 'see "vmchannel port list" for where it leads',
        }),
      ),
    )
  })
}

function socketLink(socket: Socket): Link {
  return { readable: socket, writable: socket, close: () => socket.destroy() }
}

/** The slave, opened twice: each stream closes its own. */
function ptyLink(path: string): Link {
  const flags = constants.O_RDWR | constants.O_NOCTTY
  const input = openSync(path, flags)
  let output: number
  try {
    output = openSync(path, flags)
  } catch (error) {
    closeSync(input)
    throw error
  }
  const readable = new ReadStream(input)
  const writable = new WriteStream(output)
  return {
    readable,
    writable,
    resize: (cols, rows) => setTerminalSize(input, { cols, rows }),
    close: () => {
      readable.destroy()
      writable.destroy()
    },
  }
}
