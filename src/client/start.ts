/**
 * Starts a device process and waits until it says that it is ready. Called by the library (exitWith parent), by
 * `vmchannel qemu` (vmm) and `vmchannel serve` (never). Nothing native is loaded here.
 */

import { spawn, type ChildProcess, type IOType } from 'node:child_process'
import { existsSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { VmchannelError } from '../errors.ts'
import { DEVICE_FLAGS, type DaemonConfig, type DaemonReady, type VmInfo } from '../daemon/protocol.ts'
import { aborted } from './abort.ts'

const START_TIMEOUT_MS = 30_000
const ANSWER_MAX = 4 << 20

export interface StartOptions {
  /** Where its log goes: this process's standard error (the default), a pipe, nowhere, or a descriptor. */
  stderr?: 'inherit' | 'pipe' | 'ignore' | number
  /** In a session of its own, so that signals of this terminal do not reach it. */
  detached?: boolean
  signal?: AbortSignal
  /** How long it may take, 0 for ever: ports that wait for their peer (`wait=on`) take their time. Default 30 s. */
  timeoutMs?: number
  /** Descriptors for a `stdio` port: become config.terminal. */
  terminal?: { input: number; output: number }
  /** The reading end of a pipe: becomes config.lifeline. */
  lifeline?: number
  /** With a keeper, which starts the device process again when that dies. */
  keeper?: boolean
}

export interface StartedDevice {
  pid: number
  stateDir: string
  controlSocket: string
  vms: VmInfo[]
  process: ChildProcess
  /** With exitWith parent the device process ends when this does: its standard input, or a pipe beside its keeper's. */
  stdin: Writable
  /** Its log where `stderr` is a pipe. */
  stderr: Readable | null
}

/** Rejects with what the device process gives as its reason, or with VmchannelError. */
export async function startDevice(config: DaemonConfig, options: StartOptions = {}): Promise<StartedDevice> {
  const { stderr = 'inherit', detached = false, signal, terminal, lifeline, keeper = false } = options
  if (signal?.aborted) throw aborted('starting the device process', signal)
  const stdio: (IOType | number)[] = ['pipe', 'pipe', stderr]
  const inherited: Pick<DaemonConfig, 'terminal' | 'lifeline' | 'parent'> = {}
  if (terminal) inherited.terminal = { input: stdio.push(terminal.input) - 1, output: stdio.push(terminal.output) - 1 }
  if (lifeline !== undefined) inherited.lifeline = stdio.push(lifeline) - 1
  // Node closes standard input of a child that has ended: of the keeper, whose device process goes on without it.
  if (keeper && config.exitWith === 'parent') inherited.parent = stdio.push('pipe') - 1
  const child = spawn(process.execPath, [...DEVICE_FLAGS, entry(keeper ? 'keeper' : 'daemon')], {
    stdio,
    detached,
    env: cleanEnvironment(),
  })
  const input = child.stdin as Writable
  const stdin = inherited.parent === undefined ? input : (child.stdio[inherited.parent] as Writable)
  for (const pipe of [input, stdin]) pipe.on('error', () => {}) // it ended before it read all: its exit says more
  input.write(`${JSON.stringify({ ...config, ...inherited })}\n`)
  if (config.exitWith !== 'parent' || stdin !== input) input.end()
  try {
    const answer = await readAnswer(child, options)
    if ('error' in answer) throw new VmchannelError(answer.error.code, answer.error.message, answer.error)
    return { ...answer.ready, process: child, stdin, stderr: child.stderr }
  } catch (error) {
    child.kill('SIGTERM')
    throw error
  }
}

/** The built entry; from TypeScript sources (tests) that of the last build. */
function entry(room: 'keeper' | 'daemon'): string {
  const own = import.meta.url
  const url = own.endsWith('.ts') ? new URL(`../../dist/src/${room}/main.js`, own) : new URL(`../${room}/main.js`, own)
  const { pathname } = url
  const path = decodeURIComponent(pathname)
  if (existsSync(path)) return path
  throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `the device process is missing: ${path}`, {
    hint: own.endsWith('.ts') ? 'run "npm run build"' : 'install the package again',
  })
}

/** Options for this Node are not for that one: a debugger port, a preloaded module, a coverage directory. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {}
  for (const [name, value] of Object.entries(process.env))
    if (!name.startsWith('NODE_') && name !== 'ELECTRON_RUN_AS_NODE') env[name] = value
  env['UV_THREADPOOL_SIZE'] = '1'
  if ('electron' in process.versions) env['ELECTRON_RUN_AS_NODE'] = '1'
  return env
}

function readAnswer(child: ChildProcess, { signal, timeoutMs = START_TIMEOUT_MS }: StartOptions): Promise<DaemonReady> {
  const stdout = child.stdout as Readable
  return new Promise((resolve, reject) => {
    let text = ''
    const late = (): void => fail('ERR_VMCHANNEL_TIMEOUT', `it was not ready within ${timeoutMs / 1000} s`)
    const timer = timeoutMs === 0 ? undefined : setTimeout(late, timeoutMs)
    const abort = (): void => settle(() => reject(aborted('starting the device process', signal)))
    const settle = (done: () => void): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      child.removeAllListeners()
      child.on('error', () => {})
      stdout.destroy()
      done()
    }
    const fail = (code: 'ERR_VMCHANNEL_TIMEOUT' | 'ERR_VMCHANNEL_CONTROL', why: string): void =>
      settle(() => reject(new VmchannelError(code, `the device process did not start: ${why}`)))
    signal?.addEventListener('abort', abort, { once: true })
    child.on('error', (error) => fail('ERR_VMCHANNEL_CONTROL', error.message))
    child.on('close', (status, by) => fail('ERR_VMCHANNEL_CONTROL', `it ended with ${by ?? `status ${status}`}`))
    stdout.setEncoding('utf8')
    stdout.on('data', (chunk: string) => {
      text += chunk
      const end = text.indexOf('\n')
      if (end === -1) {
        if (text.length > ANSWER_MAX) fail('ERR_VMCHANNEL_CONTROL', 'its answer has no end')
        return
      }
      try {
        const answer = JSON.parse(text.slice(0, end)) as DaemonReady
        settle(() => resolve(answer))
      } catch {
        fail('ERR_VMCHANNEL_CONTROL', 'its answer is not JSON')
      }
    })
  })
}
