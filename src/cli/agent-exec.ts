/** `vmchannel agent exec`: a program in the guest, its output and exit status here. */

import { isUtf8 } from 'node:buffer'
import type { ExecResult } from '../agent/exec.ts'
import { VmchannelError } from '../errors.ts'
import { timeoutMs, withAgent } from './agent-connect.ts'
import { printJson, warn } from './print.ts'
import type { Run } from './table.ts'

const INPUT_MAX = 8 << 20

export const agentExec: Run = async ({ args, options }) => {
  const [program, ...words] = args
  const env = options['env'] as string[] | undefined
  for (const one of env ?? [])
    if (!/^[^=]+=/.test(one))
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--env: "${one}" is no NAME=VALUE`, { hint: 'e.g. LANG=C' })
  const input = options['stdin'] ? await standardInput() : undefined
  return withAgent(options, async (agent, signal) => {
    const timeout = timeoutMs(options)
    const result = await agent.exec(program!, words, {
      signal,
      ...(timeout !== undefined && { timeout }),
      ...(env && { env }),
      ...(input && { input }),
    })
    const status = exitStatus(result)
    if (options['json']) {
      const { stdout, stderr, truncated } = result
      printJson({ status, signal: result.signal, ...text('stdout', stdout), ...text('stderr', stderr), truncated })
      return status
    }
    process.stdout.write(result.stdout)
    process.stderr.write(result.stderr)
    if (result.truncated) warn('the output was longer than the agent keeps: the rest is lost')
    return status
  })
}

/** A process has 8 bits. What does not fit in them is a failure in any case: Windows has 32. */
export function exitStatus({ status, signal }: Pick<ExecResult, 'status' | 'signal'>): number {
  if (signal !== null) return signal < 128 ? 128 + signal : 255
  return status !== null && status >= 0 && status <= 255 ? status : 255
}

function text(name: string, bytes: Buffer): Record<string, string> {
  return isUtf8(bytes) ? { [name]: bytes.toString() } : { [`${name}Base64`]: bytes.toString('base64') }
}

async function standardInput(): Promise<Buffer> {
  const pieces: Buffer[] = []
  let length = 0
  for await (const piece of process.stdin) {
    length += (piece as Buffer).length
    if (length > INPUT_MAX)
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `standard input has more than ${INPUT_MAX} bytes`, {
        hint: '"vmchannel agent put - FILE" first, and let the program read FILE',
      })
    pieces.push(piece as Buffer)
  }
  return Buffer.concat(pieces)
}
