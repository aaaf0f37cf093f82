/**
 * `vmchannel connect PORT`: a terminal or a pipe at a port. connect-link.ts reaches the port, connect-terminal.ts has
 * raw mode and the escape.
 */

import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { ControlClient } from '../client/control-client.ts'
import { findVm } from '../client/find.ts'
import type { PortInfo } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { linkToPort, type Link } from './connect-link.ts'
import { escapeByte, rawTerminal, untilEscape } from './connect-terminal.ts'
import { named, portRef } from './control.ts'
import { say } from './print.ts'
import type { Run } from './table.ts'

export const connectCommand: Run = async ({ args, options }) => {
  const ref = portRef(args[0]!)
  const escape = escapeByte(options['escape'] as string)
  const { controlSocket, vm } = await findVm(named(options))
  const client = await ControlClient.connect(controlSocket)
  let restore: (() => void) | undefined
  let link: Link | undefined
  try {
    const [port] = await client.request('port.stats', { vm, port: ref })
    link = await linkToPort(controlSocket, port!)
    const terminal = process.stdin.isTTY
    if (terminal) {
      const leave = escape === undefined ? '' : ` ${options['escape'] as string} ends the connection.`
      const name = port!.name === null ? '' : ` (${port!.name})`
      say(`Connected to port ${port!.port}${name} of ${vm}.${leave}`)
      restore = rawTerminal(process.stdin.fd)
      forwardSize(client, port!, link)
    }
    await relay(link, terminal && escape !== undefined ? untilEscape(process.stdin, escape) : process.stdin, options)
    restore?.()
    if (terminal) {
      say('')
      say('Connection ended.')
    }
  } finally {
    restore?.()
    link?.close()
    client.close()
    // A terminal that is still read would keep this process.
    process.stdin.unref?.()
    process.stdin.destroy()
  }
}

/**
 * Until the port ends the connection; with --exit-on-eof, until the input is sent. An escape ends the input at once.
 */
async function relay(link: Link, input: Readable, options: Readonly<Record<string, unknown>>): Promise<void> {
  const { readable, writable } = link
  const output = process.stdout
  const failed = new Promise<never>((_, reject) => {
    for (const stream of [readable, writable])
      stream.on('error', (cause: NodeJS.ErrnoException) => {
        // A port that goes away while we write to it has just ended.
        if (cause.code === 'EPIPE' || cause.code === 'ECONNRESET' || cause.code === 'EIO') return
        reject(
          new VmchannelError('ERR_VMCHANNEL_CLOSED', `the connection to the port broke: ${cause.message}`, { cause }),
        )
      })
  })
  const ended = new Promise<void>((resolve) => {
    readable.once('end', resolve)
    readable.once('close', resolve)
    input.once('escape', resolve)
    if (options['exitOnEof']) writable.once('finish', resolve)
  })
  readable.pipe(output, { end: false })
  input.pipe(writable)
  await Promise.race([ended, failed])
  if (output.writableLength > 0) await once(output, 'drain')
}

/** The size of this terminal, now and whenever it changes. */
function forwardSize(client: ControlClient, port: PortInfo, link: Link): void {
  const send = (): void => {
    const { columns: cols, rows } = process.stdout
    if (!cols || !rows) return
    if (link.resize) link.resize(cols, rows)
    // A guest that does not take it is no reason to end the connection.
    else if (port.console) client.request('port.resize', { vm: port.vm, port: port.port, cols, rows }).catch(() => {})
  }
  process.stdout.on('resize', send)
  send()
}
