/** `vmchannel agent get` and `vmchannel agent put`. */

import { createReadStream } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { basename } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { FileOptions } from '../agent/guest-agent.ts'
import { VmchannelError } from '../errors.ts'
import { timeoutMs, withAgent } from './agent-connect.ts'
import { humanBytes, printJson, say } from './print.ts'
import type { Run } from './table.ts'

export const agentGet: Run = ({ args, options }) => {
  const [remote, local = basename(args[0]!)] = args as [string, string?]
  return withAgent(options, async (agent, stop) => {
    const started = Date.now()
    const pieces = agent.read(remote, fileOptions(options, stop))
    if (local === '-') return pipeline(pieces, process.stdout, { end: false })
    const bytes = await save(pieces, local)
    report(options, bytes, Date.now() - started, local)
  })
}

export const agentPut: Run = async ({ args, options }) => {
  const [local, remote] = args as [string, string]
  const mode = options['mode'] as string | undefined
  if (mode !== undefined && !/^[0-7]{3,4}$/.test(mode))
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--mode: "${mode}" is no octal mode`, { hint: 'e.g. 0644' })
  const source = await openLocal(local)
  return withAgent(options, async (agent, stop) => {
    const started = Date.now()
    const more = { ...(mode !== undefined && { mode }), ...(source.size !== undefined && { size: source.size }) }
    const bytes = await agent.put(source.stream, remote, { ...fileOptions(options, stop), ...more })
    report(options, bytes, Date.now() - started, remote)
  })
}

function fileOptions(options: Readonly<Record<string, unknown>>, stop: AbortSignal): FileOptions {
  const via = options['via'] as FileOptions['via']
  const timeout = timeoutMs(options)
  // Of a file the whole time counts, not that of each request.
  const signal = timeout === undefined ? stop : AbortSignal.any([stop, AbortSignal.timeout(timeout)])
  return via === undefined ? { signal } : { signal, via }
}

function report(options: Readonly<Record<string, unknown>>, bytes: number, ms: number, path: string): void {
  if (options['json']) printJson({ path, bytes, ms })
  else say(`${path}: ${humanBytes(bytes)} in ${(ms / 1000).toFixed(1)} s`)
}

/** Under another name until all of it is there. */
async function save(pieces: AsyncIterable<Buffer>, path: string): Promise<number> {
  const part = `${path}.part-${process.pid}`
  const file = await open(part, 'wx').catch((cause: NodeJS.ErrnoException) => fail(path, cause))
  let bytes = 0
  try {
    for await (const piece of pieces) {
      await file.write(piece)
      bytes += piece.length
    }
    await file.close()
    await rename(part, path).catch((cause: NodeJS.ErrnoException) => fail(path, cause))
    return bytes
  } catch (error) {
    await file.close().catch(() => {})
    await rm(part, { force: true })
    throw error
  }
}

async function openLocal(path: string): Promise<{ stream: AsyncIterable<Uint8Array>; size?: number }> {
  if (path === '-') return { stream: process.stdin }
  const file = await open(path).catch((cause: NodeJS.ErrnoException) => fail(path, cause))
  const found = await file.stat()
  if (found.isDirectory()) {
    await file.close()
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `LOCAL: ${path} is a directory, only files can be copied`, {
      hint: `tar it: tar c ${path} | vmchannel agent put - REMOTE.tar`,
    })
  }
  // A file that grows meanwhile is copied up to here.
  const stream = createReadStream('', {
    fd: file,
    highWaterMark: 256 << 10,
    ...(found.size > 0 && { end: found.size - 1 }),
  })
  return found.isFile() ? { stream, size: found.size } : { stream }
}

function fail(path: string, cause: NodeJS.ErrnoException): never {
  const code = cause.code === 'ENOENT' ? 'ERR_VMCHANNEL_NOT_FOUND' : 'ERR_VMCHANNEL_USAGE'
  throw new VmchannelError(code, `LOCAL: ${path} cannot be opened: ${cause.message}`, {
    cause,
    ...(cause.code !== undefined && { errno: cause.code }),
  })
}
