/** Runs a clipboard tool to its end, with limits on time and output. Used by tool.ts and the back ends made of it. */

import { spawn } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { join } from 'node:path'
import { VmchannelError } from '../errors.ts'

/** A tool waits for the program that owns the clipboard, which may be stopped. */
const TOOL_MS = 5000

export function runTool(
  [file, ...args]: readonly [string, ...string[]],
  { env, max }: { env: NodeJS.ProcessEnv; max: number },
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { env, stdio: ['ignore', 'pipe', 'ignore'] })
    const refuse = (why: string): void => {
      child.kill('SIGKILL')
      reject(new VmchannelError('ERR_VMCHANNEL_CLIPBOARD', `${file}: ${why}`))
    }
    const timer = setTimeout(() => refuse('the owner of the clipboard does not answer'), TOOL_MS)
    const parts: Buffer[] = []
    let len = 0
    child.stdout.on('data', (part: Buffer) => {
      len += part.length
      if (len > max) return refuse(`more than the limit of ${max} bytes`)
      parts.push(part)
    })
    child.once('error', (cause) => refuse(cause.message))
    child.once('close', (status) => {
      clearTimeout(timer)
      if (status === 0) resolve(Buffer.concat(parts))
      else reject(new VmchannelError('ERR_VMCHANNEL_CLIPBOARD', `${file} gives nothing (status ${status})`))
    })
  })
}

export function onPath(name: string, env: NodeJS.ProcessEnv): boolean {
  return (env['PATH'] ?? '').split(':').some((folder) => {
    try {
      const path = join(folder, name)
      accessSync(path, constants.X_OK)
      return statSync(path).isFile()
    } catch {
      return false
    }
  })
}
