/**
 * The other end of tracer.c: follows a process from system call to system call and kills it at a chosen one. The whole
 * program runs under the tracer, so that every process it starts is a descendant of it; see `underTracer`.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { guestProgram } from '../lab/fetch/compiler.ts'
import { repoRoot } from '../lab/paths.ts'

const CHANNEL = 3
const UNDER = 'VMCHANNEL_UNDER_TRACER'

/** Where a process was killed. */
export interface Death {
  /** Stops since `arm`: one at the entry of each system call, one at its exit. */
  stop: number
  /** Number of the system call. */
  call: number
  at: 'entry' | 'exit'
}

/** Runs this program again under the tracer, and resolves with its exit status; undefined where it does already. */
export async function underTracer(entry: string, args: readonly string[]): Promise<number | undefined> {
  if (process.env[UNDER] === '1') return undefined
  const source = readFileSync(join(repoRoot(), 'kill', 'tracer.c'), 'utf8')
  const tracer = await guestProgram('tracer', source)
  const child = spawn(tracer, [process.execPath, ...process.execArgv, entry, ...args], {
    stdio: 'inherit',
    env: { ...process.env, [UNDER]: '1' },
  })
  const [status] = (await once(child, 'exit')) as [number | null]
  return status ?? 1
}

export class Tracer {
  /** Set when the process has been killed; `trace` clears it. */
  death: Death | undefined
  readonly #socket = new Socket({ fd: CHANNEL })
  readonly #waiting: ((line: string) => void)[] = []
  #text = ''

  constructor() {
    this.#socket.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.#text + text).split('\n')
      this.#text = lines.pop()!
      for (const line of lines) this.#line(line)
    })
    this.#socket.unref()
  }

  async trace(pid: number): Promise<void> {
    this.death = undefined
    const answer = await this.#ask(`trace ${pid}`)
    if (answer !== 'tracing')
      throw new Error(`process ${pid} cannot be traced (${answer}): this needs ptrace(2) for descendants`)
  }

  /** Kills at the nth stop from here on, 0 for not at all, `steps` instructions later. */
  async arm(stop: number, steps = 0): Promise<void> {
    await this.#ask(`arm ${stop} ${steps}`)
  }

  /** Stops since `arm`, once the process has waited for `ms`; undefined where it is dead. */
  async idle(ms: number): Promise<number | undefined> {
    const [word, count] = (await this.#ask(`idle ${ms}`)).split(' ')
    return word === 'idle' ? Number(count) : undefined
  }

  async release(): Promise<void> {
    await this.#ask('release')
  }

  close(): void {
    this.#socket.destroy()
  }

  #ask(line: string): Promise<string> {
    this.#socket.ref()
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      this.#socket.write(`${line}\n`)
    })
  }

  #line(line: string): void {
    const [word, stop, call, at] = line.split(' ')
    if (word === 'killed') this.death = { stop: Number(stop), call: Number(call), at: at as Death['at'] }
    else if (word !== 'ended') {
      this.#waiting.shift()?.(line)
      if (this.#waiting.length === 0) this.#socket.unref()
    }
  }
}
