/**
 * Locks the sessions of a guest and sees to it that they are locked, in one of two ways: loginctl, run by
 * qemu-guest-agent; or our own small agent in the guest, which does the same and nothing else. Called by watch.ts.
 */

import type { Socket } from 'node:net'
import { connectAgent, type AgentOptions } from '../agent/connect.ts'
import type { GuestAgent } from '../agent/guest-agent.ts'
import { printable } from '../agent/protocol.ts'
import { wait, type WaitOptions } from '../client/abort.ts'
import { ControlClient } from '../client/control-client.ts'
import { findVm } from '../client/find.ts'
import { reachPort } from '../client/reach.ts'
import { VmchannelError } from '../errors.ts'
import { LOCK_PORT } from './guest-script.ts'
import { parseSessions, SESSION_FUNCTIONS, type LockedSession } from './sessions.ts'

export interface Locker {
  /** Gets all ready for a `lock` that may come soon; `release` where it does not. */
  prepare(signal: AbortSignal): void
  release(): void
  /** Asks the guest to lock, says so, waits a moment, and says how all sessions stand then. */
  lock(signal: AbortSignal, asked: () => void): Promise<LockedSession[]>
  /** Only looks. */
  check(signal: AbortSignal): Promise<LockedSession[]>
  close(): void
}

const GREETING_MS = 5000
const ANSWER_MS = 20_000
const ANSWER_MAX = 64 << 10
/** Up to the end of an answer that nobody waited for, and the line that says that the sessions were told. */
const EARLIER = /^(?:[^]*\ndone \d+ \d+\n)?(?:asked \d+\n)?/

/** The agent's port takes one at a time: it is ours only while there is something to do. */
export function agentLocker(options: AgentOptions): Locker {
  let prepared: Promise<GuestAgent> | undefined
  const greet = (signal: AbortSignal): Promise<GuestAgent> => connectAgent({ timeout: GREETING_MS, ...options, signal })
  const leave = async (agent: GuestAgent): Promise<void> => {
    await agent.settled(200)
    agent.close()
  }
  const withAgent = async <T>(signal: AbortSignal, work: (agent: GuestAgent) => Promise<T>): Promise<T> => {
    const ready = await prepared?.catch(() => undefined)
    prepared = undefined
    const agent = ready && !ready.closed ? ready : await greet(signal)
    try {
      return await work(agent)
    } finally {
      await leave(agent)
    }
  }
  const run = async (agent: GuestAgent, script: string, signal: AbortSignal): Promise<string> => {
    const limits = { signal, timeout: ANSWER_MS, maxOutput: ANSWER_MAX }
    const ran = await agent.exec('/bin/sh', ['-c', script], limits)
    const said = ran.stdout.toString()
    checkStatus(ran.status ?? 128 + (ran.signal ?? 0), ran.stderr.toString() || said)
    return said
  }
  return {
    prepare(signal) {
      prepared ??= greet(signal)
      prepared.catch(() => {}) // `lock` tries again, and says why it cannot
    },
    release() {
      prepared?.then(leave).catch(() => {})
      prepared = undefined
    },
    lock: (signal, asked) =>
      withAgent(signal, async (agent) => {
        // By itself and first: what is wanted is done, whatever looking takes.
        await run(agent, 'exec loginctl lock-sessions', signal)
        asked()
        return parseSessions(await run(agent, `${SESSION_FUNCTIONS}\nwait_until_locked`, signal))
      }),
    check: (signal) =>
      withAgent(signal, async (agent) =>
        parseSessions(await run(agent, `${SESSION_FUNCTIONS}\nlist_sessions`, signal)),
      ),
    close() {
      this.release()
    },
  }
}

/** Our agent's port is nobody else's: it is kept, so that the guest's end need not look for us. */
export function ownPortLocker(options: AgentOptions): Locker {
  let socket: Socket | undefined
  let nextId = 1
  let opening: Promise<Socket> | undefined
  const open = async (signal: AbortSignal): Promise<Socket> => {
    if (socket && !socket.destroyed) return socket
    opening ??= openOwnPort(options, { signal, timeout: GREETING_MS }).finally(() => (opening = undefined))
    return (socket = await opening)
  }
  const ask = async (verb: 'lock' | 'check', signal: AbortSignal, asked = (): void => {}): Promise<LockedSession[]> => {
    const link = await open(signal)
    const id = nextId++
    const what = `the lock agent in the guest, ${verb}`
    const { text, status } = await wait<{ text: string; status: number }>(
      what,
      { signal, timeout: ANSWER_MS },
      (resolve, reject) => {
        let [text, told] = ['', false]
        const take = (chunk: unknown): void => {
          text += String(chunk)
          if (!told && new RegExp(`^asked ${id}$`, 'm').test(text)) {
            told = true
            asked()
          }
          const end = new RegExp(`^done ${id} (\\d+)$`, 'm').exec(text)
          // What an earlier request was answered, too late, stands before it.
          if (end) resolve({ text: text.slice(0, end.index).replace(EARLIER, ''), status: Number(end[1]) })
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
    checkStatus(status, text)
    return parseSessions(text)
  }
  return {
    prepare: (signal) => void open(signal).catch(() => {}),
    release: () => {},
    lock: (signal, asked) => ask('lock', signal, asked),
    check: (signal) => ask('check', signal),
    close: () => socket?.destroy(),
  }
}

async function openOwnPort(options: AgentOptions, limits: WaitOptions): Promise<Socket> {
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
    return found
  } finally {
    client.close()
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

function checkStatus(status: number, said: string): void {
  if (status === 0) return
  const missing = status === 127
  throw new VmchannelError(
    'ERR_VMCHANNEL_AGENT',
    `the guest could not lock: ${printable(said) || `status ${status}`}`,
    missing ? { hint: 'a guest without loginctl needs /etc/vmchannel/lock and our own agent' } : {},
  )
}
