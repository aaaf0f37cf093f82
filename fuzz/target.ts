/**
 * What can be fuzzed: targets give episodes, an episode is a number of random steps ("cases") and throws when something
 * is wrong. The same input is the same episode.
 */

import type { Seed } from './random.ts'

export interface FuzzTarget {
  readonly name: string
  readonly title: string
  /**
   * No step, and no turn of the event loop, may take longer (ms of processor time): a finding where it does again and
   * again. Default TURN_MS; Infinity for targets whose own work takes long.
   */
  readonly turnMs?: number
  /** How long an episode may take; default 60 s. */
  readonly hangMs?: number
  /** Sets up what episodes share. */
  start(): Promise<FuzzSession> | FuzzSession
}

export interface FuzzSession {
  /** Runs one episode; returns how many cases it was. Throws what it found. */
  episode(seed: Seed): Promise<number>
  close(): Promise<void> | void
}

/** Issue 12: no turn above 20 ms. */
export const TURN_MS = 20

/** A finding: what to run to see it again. */
export class Finding extends Error {
  override readonly name = 'Finding'
  readonly target: string
  /** The seed that made it; undefined where it was mutated from others. */
  readonly seed: number | undefined
  /** The episode's bytes, as few as are left of them after shrinking. */
  readonly input: Uint8Array

  constructor(target: string, from: { seed: number | undefined; input: Uint8Array; name: string }, cause: unknown) {
    const { seed, input, name } = from
    const where = seed === undefined ? `input ${name}` : `seed ${seed}`
    super(`${target}, ${where}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    this.target = target
    this.seed = seed
    this.input = input
  }
}

/** For targets without anything to share. */
export function simple(name: string, title: string, episode: FuzzSession['episode']): FuzzTarget {
  return { name, title, start: () => ({ episode, close: () => {} }) }
}
