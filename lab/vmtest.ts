/**
 * Typed front of lab/guest/vmtest: what a test does to a character device inside the guest. Times are nanoseconds of
 * the guest's clock, errors are names ("EAGAIN"; "OK" for none).
 */
import { VmchannelError } from '../src/errors.ts'
import type { Job, RunResult } from './agent.ts'
import type { Machine } from './machine.ts'

export interface VmtestResults {
  sink: { bytes: number; ns: number; total_ns: number; reads: number; eof: boolean; sha256: string }
  source: { bytes: number; ns: number; writes: number; partial: number; sha256: string }
  echo: { bytes: number; ns: number; reads: number; writes: number; partial: number }
  loop: { bytes: number; writes: number }
  ping: { count: number; size: number; wrong: number; min: number; p50: number; p99: number; max: number }
  splice: { bytes: number; ns: number; splices: number }
  vmsplice: { bytes: number; ns: number; splices: number; sha256: string }
  nonblock: {
    read: number
    read_errno: string
    writes: number
    bytes: number
    write_errno: string
    revents: PollEvent[]
  }
  poll: { ns: number; revents: PollEvent[] }
  sigio: { sigio: boolean; ns: number; revents: PollEvent[] }
  storm: { count: number; failed: number; errno: string; ns: number }
  open2: { second: boolean; errno: string }
  lseek: { lseek: string; pread: string }
  hold: { held: true }
  winsize: { rows: number; cols: number; changed: boolean }
}

export type PollEvent = 'IN' | 'OUT' | 'ERR' | 'HUP' | 'NVAL' | 'RDHUP'
export type VmtestName = keyof VmtestResults

/** A sub-command that waits for something: it has the device open and is armed. */
export interface VmtestJob<Name extends VmtestName> {
  job: Job
  result(timeout?: number): Promise<VmtestResults[Name]>
}

/** Runs `vmtest NAME WORDS…`; fails with the error's name in the message when vmtest does. */
export async function vmtest<Name extends VmtestName>(
  machine: Machine,
  name: Name,
  words: readonly (string | number)[],
  timeout?: number,
): Promise<VmtestResults[Name]> {
  const command = ['vmtest', name, ...words].join(' ')
  return parse(command, await machine.run(command, timeout === undefined ? {} : { timeout })) as VmtestResults[Name]
}

/** Starts one of sink, echo, loop, poll, sigio, hold, or winsize with a time, and waits until it is ready. */
export async function startVmtest<Name extends 'sink' | 'echo' | 'loop' | 'poll' | 'sigio' | 'hold' | 'winsize'>(
  machine: Machine,
  name: Name,
  words: readonly (string | number)[],
): Promise<VmtestJob<Name>> {
  const command = ['vmtest', name, ...words].join(' ')
  const job = machine.spawn(command)
  const [said] = await job.waitForOutput(/^ready\n|"error".*\n/)
  if (said !== 'ready\n') parse(command, await job.wait())
  return { job, result: async (timeout) => parse(command, await job.wait(timeout)) as VmtestResults[Name] }
}

function parse(command: string, { status, output }: RunResult): unknown {
  const last = output.trimEnd().split('\n').at(-1) ?? ''
  if (status === 0) return JSON.parse(last)
  throw new VmchannelError(
    'ERR_VMCHANNEL_INTERNAL',
    `guest: ${command}: status ${status}: ${output.trim().slice(-2000)}`,
  )
}
