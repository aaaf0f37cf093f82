/** Cuts what comes from a device process into lines, within a bound. Used by control-client.ts and attach.ts. */

import { VmchannelError } from '../errors.ts'
import { REPLY_MAX } from '../daemon/protocol.ts'

const NEWLINE = 10

export class LineReader {
  #chunks: Buffer[] = []
  #len = 0

  /** Calls back for each line that `chunk` completes, until one returns true; returns the bytes after that one. */
  push(chunk: Buffer, onLine: (line: string) => boolean): Buffer | undefined {
    let rest = chunk
    for (;;) {
      const end = rest.indexOf(NEWLINE)
      if (end === -1) {
        this.#keep(rest)
        return undefined
      }
      this.#keep(rest.subarray(0, end))
      rest = rest.subarray(end + 1)
      const line = Buffer.concat(this.#chunks).toString()
      this.#chunks = []
      this.#len = 0
      if (onLine(line)) return rest
    }
  }

  #keep(part: Buffer): void {
    if (part.length === 0) return
    this.#len += part.length
    if (this.#len > REPLY_MAX)
      throw new VmchannelError(
        'ERR_VMCHANNEL_CONTROL',
        `the device process sent a line of more than ${REPLY_MAX} bytes`,
      )
    this.#chunks.push(part)
  }
}

export interface Reply {
  id?: number | null
  result?: unknown
  error?: unknown
  event?: string
}

/** A line of the control protocol as an object; VmchannelError where it is none. */
export function parseReply(line: string): Reply {
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null) return value
  } catch {
    // said below
  }
  throw new VmchannelError('ERR_VMCHANNEL_CONTROL', 'the device process sent something that is no reply', {
    hint: 'is this the control socket of a vmchannel device process?',
  })
}

/** The error that a reply carries, as an Error. */
export function replyError(error: unknown): VmchannelError {
  const { code, message, hint } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  const known = typeof code === 'string' && code.startsWith('ERR_VMCHANNEL_')
  return new VmchannelError(
    known ? (code as VmchannelError['code']) : 'ERR_VMCHANNEL_CONTROL',
    typeof message === 'string' ? message : 'the device process refused without a reason',
    typeof hint === 'string' ? { hint } : {},
  )
}
