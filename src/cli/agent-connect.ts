/** How commands reach a guest's agent. Called by agent.ts, agent-exec.ts, agent-file.ts and screenlock.ts. */

import { connectAgent } from '../agent/connect.ts'
import type { GuestAgent } from '../agent/guest-agent.ts'
import { VmchannelError } from '../errors.ts'
import { named, portRef } from './control.ts'
import type { Call } from './table.ts'

type Options = Call['options']

/** Milliseconds of --timeout, where it is given. */
export function timeoutMs(options: Options): number | undefined {
  const word = options['timeout'] as string | undefined
  if (word === undefined) return undefined
  const seconds = /^\d+(\.\d+)?$/.test(word) ? Number(word) : NaN
  if (seconds > 0 && seconds <= 1e6) return Math.ceil(seconds * 1000)
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--timeout: "${word}" is no number of seconds`, {
    hint: 'write seconds, e.g. 60 or 0.5',
  })
}

/** The agent that the options name. */
export function openAgent(options: Options, signal?: AbortSignal): Promise<GuestAgent> {
  const port = options['port'] as string | undefined
  const socket = options['socket'] as string | undefined
  if (port !== undefined && socket !== undefined)
    throw new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      '--port and --socket: only one of them can say where the agent is',
      {
        hint: '--port is for a port of a device process of ours, --socket for any other',
      },
    )
  return connectAgent({
    ...named(options),
    port: port === undefined ? undefined : portRef(port),
    socket,
    signal,
    timeout: timeoutMs(options),
  })
}

/**
 * Works with the agent, and lets it go. SIGINT and SIGTERM abort what is going on, so that it is undone in the guest; then
 * they do what they always do.
 */
export async function withAgent<T>(
  options: Options,
  work: (agent: GuestAgent, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const abort = new AbortController()
  let caught: NodeJS.Signals | undefined
  const stop = (signal: NodeJS.Signals): void => {
    // Twice: the user means it.
    if (caught) process.exit(signal === 'SIGINT' ? 130 : 143)
    caught = signal
    abort.abort()
  }
  process.on('SIGINT', stop).on('SIGTERM', stop)
  try {
    const agent = await openAgent(options, abort.signal)
    try {
      return await work(agent, abort.signal)
    } finally {
      await agent.settled(STOP_MS)
      agent.close()
    }
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
    if (caught) process.kill(process.pid, caught)
  }
}

const STOP_MS = 3000
