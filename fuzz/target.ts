/**
 * What can be fuzzed: targets give seeded episodes, an episode is a number of random steps ("cases") and throws when
 * something is wrong. The same seed is the same episode.
 */

export interface FuzzTarget {
  readonly name: string
  readonly title: string
  /** Sets up what episodes share. */
  start(): Promise<FuzzSession> | FuzzSession
}

export interface FuzzSession {
  /** Runs one episode; returns how many cases it was. Throws what it found. */
  episode(seed: number): Promise<number>
  close(): Promise<void> | void
}

/** A finding: what to run to see it again. */
export class Finding extends Error {
  override readonly name = 'Finding'
  readonly target: string
  readonly seed: number

  constructor(target: string, seed: number, cause: unknown) {
    super(`${target}, seed ${seed}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    this.target = target
    this.seed = seed
  }
}

/** For targets without anything to share. */
export function simple(name: string, title: string, episode: (seed: number) => Promise<number>): FuzzTarget {
  return { name, title, start: () => ({ episode, close: () => {} }) }
}
