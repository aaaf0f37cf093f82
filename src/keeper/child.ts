/**
 * A device process as its keeper starts it: loaded, with its end of the channel, waiting on standard input for its
 * configuration. The first one gets it at once, a spare when it is needed.
 */

import { spawn, type ChildProcess, type IOType } from 'node:child_process'
import { DEVICE_FLAGS } from '../daemon/protocol.ts'
import { closeFd } from '../ffi/libc.ts'
import { packetPair } from '../ffi/socket-calls.ts'

export interface ChildOptions {
  /** Descriptors that the keeper was given: the same numbers in the child. */
  inherited: readonly number[]
  /** Whether it answers on the keeper's standard output. */
  answers: boolean
  /** Whether it ends with the keeper's parent, whose pipe is standard input. */
  withParent: boolean
}

export class Child {
  readonly process: ChildProcess
  /** The keeper's end of the channel. */
  readonly channel: number
  /** What the device process has to know of its keeper: a part of its configuration. */
  readonly place: { channel: number; input?: number }

  constructor({ inherited, answers, withParent }: ChildOptions) {
    const pair = packetPair()
    const top = Math.max(2, ...inherited) + 1
    const stdio: (IOType | number)[] = ['pipe', answers ? 1 : 'ignore', 2]
    while (stdio.length < top) stdio.push(inherited.includes(stdio.length) ? stdio.length : 'ignore')
    stdio.push(pair.theirs)
    if (withParent) stdio.push(0)
    this.place = { channel: top, ...(withParent ? { input: top + 1 } : {}) }
    this.channel = pair.ours
    const entry = decodeURIComponent(new URL('../daemon/main.js', import.meta.url).pathname)
    this.process = spawn(process.execPath, [...DEVICE_FLAGS, entry], { stdio })
    closeFd(pair.theirs)
    // It ended before it read all: its exit says more.
    this.process.stdin?.on('error', () => {})
  }

  configure(text: string): void {
    this.process.stdin?.end(text)
  }

  close(): void {
    closeFd(this.channel)
  }
}
