/**
 * Runs a program in the guest and waits for its end. Called by guest-agent.ts.
 *
 * The agent gives no word when a program ends, and no way to end one: it is asked again and again, ever more seldom,
 * and a program that nobody waits for any more is killed by another.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { aborted, type WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { nonsense, shape, type Shape } from './protocol.ts'

export interface ExecOptions extends WaitOptions {
  /** "NAME=VALUE"; left out, the program has the agent's own variables. */
  env?: readonly string[]
  /** What it reads on standard input, at most 8 MiB; nothing where it is left out. */
  input?: string | Uint8Array
  /** Whether what it writes is wanted. Default true. */
  capture?: boolean
  /**
   * Bytes of each of standard output and error that are kept. Default and most: 16 MiB, where the agent cuts as well.
   */
  maxOutput?: number
  /** What becomes of it when the time is over or the signal comes. Default: it is killed. */
  onAbort?: 'kill' | 'leave'
}

export interface ExecResult {
  /** Process id in the guest. */
  pid: number
  /** Exit status, null where a signal ended it. From 0 to 255, or any 32 bits where the guest is Windows. */
  status: number | null
  /** Number of the signal; of the exception on Windows. */
  signal: number | null
  stdout: Buffer
  stderr: Buffer
  /** Something of standard output or standard error was left out. */
  truncated: boolean
}

/** Asks the agent; given by guest-agent.ts. */
export type Ask = (what: string, args: unknown, options?: WaitOptions) => Promise<unknown>

const INPUT_MAX = 8 << 20
const OUTPUT_MAX = 16 << 20
const POLL_FIRST_MS = 5
const POLL_LAST_MS = 500
/** An end is seen late by this share of the time that the program took, at most. */
const POLL_GROWTH = 1.2
const KILL_MS = 5000

interface Status {
  exited: boolean
  exitcode?: number
  signal?: number
  'out-data'?: string
  'err-data'?: string
  'out-truncated'?: boolean
  'err-truncated'?: boolean
}

/** `later` is told of what goes on after a program was given up. */
export async function exec(
  ask: Ask,
  path: string,
  args: readonly string[],
  options: ExecOptions,
  later: (work: Promise<void>) => void = () => {},
): Promise<ExecResult> {
  const { input, env, capture = true, maxOutput = OUTPUT_MAX, onAbort = 'kill', signal, timeout } = options
  const bytes = input === undefined ? undefined : Buffer.from(input as Uint8Array)
  if (bytes && bytes.length > INPUT_MAX)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `input: ${bytes.length} bytes, at most ${INPUT_MAX} can be given`, {
      hint: 'put it into a file of the guest first, and let the program read that',
    })
  const deadline = timeout === undefined ? Infinity : Date.now() + timeout
  // No number of ours means no process to end: the start itself is not given up half-way without knowing the pid.
  const started = ask('guest-exec', {
    path,
    arg: args,
    'capture-output': capture,
    ...(env && { env }),
    ...(bytes && { 'input-data': bytes.toString('base64') }),
  }).then((value) => shape<{ pid: number }>('guest-exec', value, { pid: 'count' }).pid)
  started.catch(() => {})
  let pid: number | undefined
  try {
    pid = await limit(path, started, signal, deadline)
    for (let pause = POLL_FIRST_MS; ; pause = Math.min(pause * POLL_GROWTH, POLL_LAST_MS)) {
      const answer = await limit(path, ask('guest-exec-status', { pid }), signal, deadline)
      const status = shape<Status>('guest-exec-status', answer, STATUS)
      if (status.exited) return result(pid, status, maxOutput)
      await limit(path, sleep(pause, undefined, { ref: true }), signal, deadline)
    }
  } catch (error) {
    const given = error instanceof VmchannelError ? error.code : ''
    const up = given === 'ERR_VMCHANNEL_ABORTED' || given === 'ERR_VMCHANNEL_TIMEOUT'
    if (up && onAbort === 'kill') later(started.then((pid) => end(ask, pid)).catch(() => {}))
    throw error
  }
}

const STATUS: Shape = {
  ...{ exited: 'boolean', 'exitcode?': 'integer', 'signal?': 'count', 'out-data?': 'string', 'err-data?': 'string' },
  ...{ 'out-truncated?': 'boolean', 'err-truncated?': 'boolean' },
}

function result(pid: number, status: Status, max: number): ExecResult {
  if (status.exitcode === undefined && status.signal === undefined)
    throw nonsense('guest-exec-status', 'how did it end?')
  // 32 bits, signed or not: that is what Windows has.
  for (const number of [status.exitcode ?? 0, status.signal ?? 1])
    if (number < -(2 ** 31) || number >= 2 ** 32 || (number === 0 && status.signal === 0))
      throw nonsense('guest-exec-status', `it ended with ${number}`)
  const stdout = Buffer.from(status['out-data'] ?? '', 'base64')
  const stderr = Buffer.from(status['err-data'] ?? '', 'base64')
  const cut = status['out-truncated'] === true || status['err-truncated'] === true
  return {
    pid,
    status: status.signal === undefined ? (status.exitcode ?? null) : null,
    signal: status.signal ?? null,
    stdout: stdout.subarray(0, max),
    stderr: stderr.subarray(0, max),
    truncated: cut || stdout.length > max || stderr.length > max,
  }
}

/** Kills it and takes its end off the agent's hands: a status that nobody asks for is kept there for ever. */
async function end(ask: Ask, pid: number): Promise<void> {
  const wait = { timeout: KILL_MS }
  await ask('guest-exec', { path: '/bin/sh', arg: ['-c', 'kill -9 "$1"', 'sh', String(pid)] }, wait)
  const deadline = Date.now() + KILL_MS
  while (Date.now() < deadline) {
    const answer = await ask('guest-exec-status', { pid }, wait)
    if (shape<Status>('guest-exec-status', answer, { exited: 'boolean' }).exited) return
    await sleep(100)
  }
}

/** The promise, the signal or the deadline, whichever comes first. */
async function limit<T>(path: string, work: Promise<T>, signal: AbortSignal | undefined, deadline: number): Promise<T> {
  const what = `${path} in the guest`
  work.catch(() => {})
  if (signal?.aborted) throw aborted(what, signal)
  let timer: NodeJS.Timeout | undefined
  let stop: (() => void) | undefined
  const ends = new Promise<never>((_, reject) => {
    stop = () => reject(aborted(what, signal))
    signal?.addEventListener('abort', stop, { once: true })
    if (deadline === Infinity) return
    const late = (): void => reject(new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `${what}: did not end in time`))
    timer = setTimeout(late, Math.max(0, deadline - Date.now()))
  })
  try {
    return await Promise.race([work, ends])
  } finally {
    clearTimeout(timer)
    if (stop) signal?.removeEventListener('abort', stop)
  }
}
