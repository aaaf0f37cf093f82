/** Random decisions, from a seed (the same seed, the same run) or from the bytes of a fuzzer's input. */

import { expand, Input } from './input.ts'

/** What an episode is made of: a seed, or bytes that mutate. */
export type Seed = number | Input

/** Longer strings of bytes are one word of the input: their contents are not worth mutating. */
const EXPLICIT_LEN = 64

export class Random {
  readonly #input: Input

  constructor(seed: Seed) {
    this.#input = typeof seed === 'number' ? new Input(undefined, seed) : seed
  }

  /** An input's bytes are used up: an episode that asks can end early, one that does not gets zeros. */
  get ended(): boolean {
    return this.#input.ended
  }
  /** A step begins: mutators cut here, and none may keep the event loop longer than `turnMs` of its target. */
  step(): void {
    this.#input.step()
  }
  /** 0 … 2^32 - 1 */
  word(): number {
    return this.#input.below(0x1_0000_0000)
  }
  /** 0 … n - 1. */
  below(n: number): number {
    return this.#input.below(n)
  }
  chance(percent: number): boolean {
    return this.below(100) < percent
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }
  bytes(len: number): Uint8Array {
    if (len > EXPLICIT_LEN) return expand(this.word(), len)
    return Uint8Array.from({ length: len }, () => this.below(256))
  }
}
