/** Reaches a port from the host side, whatever it leads to. Called by connect.ts. */

import { closeSync, constants, openSync } from 'node:fs'
import type { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { ReadStream, WriteStream } from 'node:tty'
import { portWords, reachPort } from '../client/reach.ts'
import { parseChardevSpec } from '../chardev/spec.ts'
import type { PortInfo } from '../daemon/protocol.ts'
import { setTerminalSize } from '../ffi/tty.ts'

export interface Link {
  readable: Readable
  writable: Writable
  /** Where the far end takes the size of a terminal by itself. */
  resize?: (cols: number, rows: number) => void
  close(): void
}

export async function linkToPort(controlSocket: string, port: PortInfo): Promise<Link> {
  const pty = parseChardevSpec(port.chardev, portWords(port)).kind === 'pty'
  if (pty && port.place !== null) return ptyLink(port.place)
  return socketLink(await reachPort(controlSocket, port))
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
