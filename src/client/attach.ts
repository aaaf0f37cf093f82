/**
 * Becomes the far end of an `attach` port: a plain connected socket that carries its bytes. Used by the library's streams
 * and by `vmchannel connect`.
 */

import type { Socket } from 'node:net'
import { VmchannelError } from '../errors.ts'
import type { Methods, PortInfo } from '../daemon/protocol.ts'
import { wait, type WaitOptions } from './abort.ts'
import { connectSocket } from './connect-socket.ts'
import { LineReader, parseReply, replyError } from './lines.ts'

const ANSWER_MS = 10_000

export interface Attached {
  /** Paused; the first byte it gives is the first of the port. */
  socket: Socket
  info: PortInfo
}

export async function attachPort(
  controlSocket: string,
  params: Methods['port.attach']['params'],
  options: WaitOptions = {},
): Promise<Attached> {
  const socket = await connectSocket(controlSocket, options)
  try {
    const info = await wait<PortInfo>('port.attach', { timeout: ANSWER_MS, ...options }, (resolve, reject) => {
      const lines = new LineReader()
      const take = (chunk: Buffer): void => {
        try {
          const rest = lines.push(chunk, (line) => {
            const reply = parseReply(line)
            if (reply.error === undefined) resolve(reply.result as PortInfo)
            else reject(replyError(reply.error))
            return true
          })
          if (rest && rest.length > 0) socket.unshift(rest)
        } catch (error) {
          reject(error as Error)
        }
      }
      const gone = (cause?: Error): void =>
        reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the device process has ended', { cause }))
      socket.on('data', take)
      socket.on('close', gone)
      socket.on('error', gone)
      socket.write(`${JSON.stringify({ id: 1, method: 'port.attach', params })}\n`)
      return () => {
        socket.pause()
        socket.removeListener('data', take)
        socket.removeListener('close', gone)
        socket.removeListener('error', gone)
      }
    })
    return { socket, info }
  } catch (error) {
    socket.on('error', () => {})
    socket.destroy()
    throw error
  }
}
