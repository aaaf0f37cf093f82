/**
 * Files of the guest over the agent's own file commands: works with every agent and every connection, a megabyte or two
 * a second (base64 in JSON, which the guest spells out byte by byte). transfer.ts is the fast way. Called by
 * guest-agent.ts.
 */

import type { WaitOptions } from '../client/abort.ts'
import type { Ask } from './exec.ts'
import { nonsense, number, shape } from './protocol.ts'

/** Larger ones are no faster, and each must come within the time limit of one request. */
const CHUNK = 48 << 10
const CLOSE_MS = 5000

/** The bytes written. The file is made, or emptied first. */
export async function putByCommands(
  ask: Ask,
  path: string,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: WaitOptions,
): Promise<number> {
  return withFile(ask, path, 'w', options, async (handle) => {
    let written = 0
    for await (const piece of source) {
      for (let at = 0; at < piece.length;) {
        const part = Buffer.from(piece.buffer, piece.byteOffset + at, Math.min(CHUNK, piece.length - at))
        const answer = await ask('guest-file-write', { handle, 'buf-b64': part.toString('base64') }, options)
        const { count } = shape<{ count: number }>('guest-file-write', answer, { count: 'count' })
        if (count < 1 || count > part.length) throw nonsense('guest-file-write', `${count} of ${part.length} bytes`)
        at += count
        written += count
      }
    }
    return written
  })
}

export async function* getByCommands(ask: Ask, path: string, options: WaitOptions): AsyncGenerator<Buffer, void, void> {
  const handle = await open(ask, path, 'r', options)
  try {
    for (;;) {
      const answer = await ask('guest-file-read', { handle, count: CHUNK }, options)
      const fields = { 'buf-b64': 'string', eof: 'boolean' } as const
      const read = shape<{ 'buf-b64': string; eof: boolean }>('guest-file-read', answer, fields)
      const bytes = Buffer.from(read['buf-b64'], 'base64')
      if (bytes.length > CHUNK) throw nonsense('guest-file-read', `${bytes.length} bytes, ${CHUNK} were asked for`)
      if (bytes.length > 0) yield bytes
      if (read.eof || bytes.length === 0) return
    }
  } finally {
    await close(ask, handle)
  }
}

async function withFile<T>(
  ask: Ask,
  path: string,
  mode: string,
  options: WaitOptions,
  work: (handle: number) => Promise<T>,
): Promise<T> {
  const handle = await open(ask, path, mode, options)
  let result: T
  try {
    result = await work(handle)
  } catch (error) {
    await close(ask, handle)
    throw error
  }
  // Here a full disk may show for the first time.
  await ask('guest-file-close', { handle }, options)
  return result
}

async function open(ask: Ask, path: string, mode: string, options: WaitOptions): Promise<number> {
  return number('guest-file-open', await ask('guest-file-open', { path, mode }, options), 'integer')
}

/** The agent keeps what nobody closes for as long as it lives. */
async function close(ask: Ask, handle: number): Promise<void> {
  await ask('guest-file-close', { handle }, { timeout: CLOSE_MS }).catch(() => {})
}
