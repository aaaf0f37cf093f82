/**
 * Runs an episode with everything that watches it: the time a step or a turn takes, promises that nobody listens to,
 * episodes that do not end, memory that does not come back, and which code ran.
 */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Coverage } from './coverage.ts'
import { Input, INPUT_MAX } from './input.ts'
import { TURN_MS, type FuzzSession, type FuzzTarget } from './target.ts'
import { TurnClock } from './turn-clock.ts'

export interface Executed {
  cases: number
  /** The input as it was used. */
  bytes: Uint8Array
  marks: readonly number[]
  features: number[]
  /** What is wrong, where something is. */
  error: unknown
}

export interface ExecutorOptions {
  coverage?: Coverage | undefined
  hangMs: number
  /** Where the input of the episode that runs can be seen from outside. */
  storage?: Uint8Array | undefined
  onEpisode?: (() => void) | undefined
}

/** A turn that took too long has to do so this often; one that took many times the limit need not. */
const AGAIN = 3
/** Code with counters takes up to so many times as long. */
const INSTRUMENTED = 2
const CLEAR = 10
const MEMORY_MAX = 256 << 20
const MEMORY_EVERY = 50

export class Executor {
  readonly #target: FuzzTarget
  readonly #options: ExecutorOptions
  readonly #storage: Uint8Array
  #session: FuzzSession | undefined
  #stray: ((error: unknown) => void) | undefined
  #runs = 0
  #memory = 0

  constructor(target: FuzzTarget, options: ExecutorOptions) {
    this.#target = target
    this.#options = options
    this.#storage = options.storage ?? new Uint8Array(INPUT_MAX)
    process.on('unhandledRejection', this.#onStray).on('uncaughtException', this.#onStray)
  }

  readonly #onStray = (error: unknown): void => {
    const why = error instanceof Error ? error.message : String(error)
    this.#stray?.(new Error(`nobody listened for: ${why}`, { cause: error }))
  }

  async run(bytes: Uint8Array, seed?: number): Promise<Executed> {
    const ran = await this.#once(bytes, seed)
    const limit = (this.#target.turnMs ?? TURN_MS) * (this.#options.coverage ? INSTRUMENTED : 1)
    let { longest, step } = ran.clock
    for (let i = 1; i < AGAIN && !ran.error && longest > limit && longest < limit * CLEAR; i++) {
      const { clock } = await this.#once(ran.bytes)
      if (clock.longest < longest) ({ longest, step } = clock)
    }
    if (!ran.error && longest > limit)
      ran.error = new Error(`step ${step} kept the event loop ${longest.toFixed(0)} ms, more than ${limit} ms`)
    if (!ran.error && ++this.#runs % MEMORY_EVERY === 0) ran.error = this.#memoryGrows()
    // What is shared may be what is broken.
    if (ran.error) await this.close()
    return ran
  }

  async #once(bytes: Uint8Array, seed?: number): Promise<Executed & { clock: TurnClock }> {
    const { coverage } = this.#options
    const hangMs = this.#target.hangMs ?? this.#options.hangMs
    this.#session ??= await this.#target.start()
    const input = new Input(bytes, seed, this.#storage)
    const clock = new TurnClock()
    input.onStep = clock.onStep
    let cases = 0
    let error: unknown
    let timer: NodeJS.Timeout | undefined
    const stopped = new Promise<never>((_, reject) => {
      this.#stray = reject
      timer = setTimeout(() => reject(new Error(`no end after ${hangMs / 1000} s`)), hangMs)
    })
    stopped.catch(() => {})
    this.#options.onEpisode?.()
    coverage?.clear()
    clock.start()
    try {
      cases = await Promise.race([this.#session.episode(input), stopped])
    } catch (thrown) {
      error = thrown ?? new Error('undefined was thrown')
    } finally {
      clock.stop()
      clearTimeout(timer)
    }
    return { cases, bytes: input.used, marks: input.marks, features: coverage?.features() ?? [], error, clock }
  }

  /** After a collection of garbage, against the first time. */
  #memoryGrows(): Error | undefined {
    const now = memory()
    if (this.#memory === 0) this.#memory = now
    if (now - this.#memory < MEMORY_MAX) return undefined
    collectGarbage()
    const grown = memory() - this.#memory
    return grown < MEMORY_MAX ? undefined : new Error(`memory grew by ${grown >> 20} MiB in ${this.#runs} episodes`)
  }

  async close(): Promise<void> {
    this.#stray = undefined
    await this.#session?.close()
    this.#session = undefined
  }

  async dispose(): Promise<void> {
    await this.close()
    process.off('unhandledRejection', this.#onStray).off('uncaughtException', this.#onStray)
  }
}

function memory(): number {
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
}
