/**
 * Locks the sessions of a guest and sees to it that they are locked, in one of two ways: loginctl, run by
 * qemu-guest-agent; or our own small agent in the guest, which does the same and nothing else. Called by watch.ts.
 */

import type { Socket } from 'node:net'
import { connectAgent, type AgentOptions } from '../agent/connect.ts'
import { printable } from '../agent/protocol.ts'
import { wait, type WaitOptions } from '../client/abort.ts'
import { ControlClient } from '../client/control-client.ts'
import { findVm } from '../client/find.ts'
import { reachPort } from '../client/reach.ts'
import { VmchannelError } from '../errors.ts'
import { LOCK_PORT } from './guest-script.ts'
import { LIST_SESSIONS, parseSessions, WAIT_UNTIL_LOCKED, type LockedSession } from './sessions.ts'

export interface Locker {
  /** Asks the guest to lock, waits a moment, and says how all sessions stand then. */
  lock(signal: AbortSignal): Promise<LockedSession[]>
  /** Only looks. */
  check(signal: AbortSignal): Promise<LockedSession[]>
  close(): void
}

const GREETING_MS = 5000
const ANSWER_MS = 20_000
const ANSWER_MAX = 64 << 10

/** The agent's port takes one at a time: it is ours only while there is something to do. */
export function agentLocker(options: AgentOptions): Locker {
  const run = async (script: string, signal: AbortSignal): Promise<LockedSession[]> => {
    const agent = await connectAgent({ timeout: GREETING_MS, ...options, signal })
    try {
      const limits = { signal, timeout: ANSWER_MS, maxOutput: ANSWER_MAX }
      const ran = await agent.exec('/bin/sh', ['-c', script], limits)
      return answer(ran.status ?? 128 + (ran.signal ?? 0), ran.stdout.toString(), ran.stderr.toString())
    } finally {
      await agent.settled(200)
      agent.close()
    }
  }
  const list = `list_sessions() {\n${LIST_SESSIONS}\n}\n`
  return {
    lock: (signal) => run(`loginctl lock-sessions || exit\n${list}${WAIT_UNTIL_LOCKED}`, signal),
    check: (signal) => run(`${list}list_sessions`, signal),
    close: () => {},
  }
}

/** Our agent's port is nobody else's: it is kept, so that the guest's end need not look for us. */
export function ownPortLocker(options: AgentOptions): Locker {
  let socket: Socket | undefined
  let nextId = 1
  const open = async (limits: WaitOptions): Promise<Socket> => {
    if (socket && !socket.destroyed) return socket
    const { controlSocket, vm } = await findVm(options)
    const client = await ControlClient.connect(controlSocket, limits)
    try {
      const wanted = options.port ?? LOCK_PORT
      const ports = await client.request('port.list', { vm }, limits)
      const port = ports.find(({ port, name }) => port === wanted || name === wanted)
      if (!port)
        throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${vm} has no port ${wanted}`, {
          hint: `add one with "vmchannel port add attach,name=${wanted}"`,
        })
      const found = await reachPort(controlSocket, port, limits)
      found.setEncoding('utf8').on('error', () => {})
      socket = found
      return found
    } finally {
      client.close()
    }
  }
  const ask = async (verb: 'lock' | 'check', signal: AbortSignal): Promise<LockedSession[]> => {
    const link = await open({ signal, timeout: GREETING_MS })
    const id = nextId++
    const what = `the lock agent in the guest, ${verb}`
    const { text, status } = await wait<{ text: string; status: number }>(
      what,
      { signal, timeout: ANSWER_MS },
      (resolve, reject) => {
        let text = ''
        const take = (chunk: unknown): void => {
          text += String(chunk)
          const end = new RegExp(`^done ${id} (\\d+)$`, 'm').exec(text)
          // What an earlier request was answered, too late, stands before it.
          if (end)
            resolve({ text: text.slice(0, end.index).replace(/^[^]*\ndone \d+ \d+\n/, ''), status: Number(end[1]) })
          else if (text.length > ANSWER_MAX)
            reject(new VmchannelError('ERR_VMCHANNEL_AGENT', `${what}: it talks too much`))
        }
        const gone = (): void =>
          reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the port of the lock agent was closed'))
        link.on('data', take).on('close', gone)
        link.resume()
        link.write(`${verb} ${id}\n`)
        return () => void link.off('data', take).off('close', gone)
      },
    ).catch((error: unknown) => {
      // The next one starts afresh.
      link.destroy()
      throw error
    })
    return answer(status, text, text)
  }
  return {
    lock: (signal) => ask('lock', signal),
    check: (signal) => ask('check', signal),
    close: () => socket?.destroy(),
  }
}

/** Whether the VM has a port for our agent; where none can be asked, no. */
export async function hasOwnPort(options: AgentOptions): Promise<boolean> {
  if (options.socket !== undefined || options.port !== undefined) return false
  try {
    const { controlSocket, vm } = await findVm(options)
    const client = await ControlClient.connect(controlSocket, { timeout: GREETING_MS })
    try {
      const ports = await client.request('port.list', { vm }, { timeout: GREETING_MS })
      return ports.some(({ name }) => name === LOCK_PORT)
    } finally {
      client.close()
    }
  } catch {
    return false
  }
}

function answer(status: number, text: string, said: string): LockedSession[] {
  if (status === 0) return parseSessions(text)
  const missing = status === 127
  throw new VmchannelError(
    'ERR_VMCHANNEL_AGENT',
    `the guest could not lock: ${printable(said) || `status ${status}`}`,
    missing ? { hint: 'a guest without loginctl needs /etc/vmchannel/lock and our own agent' } : {},
  )
}
