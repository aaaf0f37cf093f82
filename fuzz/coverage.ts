/**
 * Which code an episode ran, as the feedback of the fuzzer: a counter for each block of src, which instrument.ts put
 * into the code when Node loaded it (main.ts). Without instrumented code there is no feedback, and inputs are seeds
 * only.
 */

const COUNTERS_MAX = 1 << 16
/** A count is a feature by its class: once, twice, three, up to 7, 15, 31, 127, more. */
const CLASSES = 8
const CLASS_OF = Uint8Array.from({ length: 256 }, (_, n) =>
  n < 4 ? n - 1 : n < 32 ? Math.clz32(1) - Math.clz32(n) + 1 : n < 128 ? 6 : 7,
)

export class Coverage {
  readonly #counters = new Uint8Array(COUNTERS_MAX)
  #used = 0

  /** Makes it the one that loaded code counts into. */
  install(): this {
    Object.defineProperty(globalThis, COVERAGE_HOOK, {
      value: (blocks: number) => this.#region(blocks),
      configurable: true,
    })
    return this
  }

  /** How many blocks there are; 0 where nothing was instrumented. */
  get blocks(): number {
    return this.#used
  }

  #region(blocks: number): Uint8Array {
    if (this.#used + blocks > COUNTERS_MAX) throw new Error(`coverage: more than ${COUNTERS_MAX} blocks`)
    const region = this.#counters.subarray(this.#used, this.#used + blocks)
    this.#used += blocks
    return region
  }

  clear(): void {
    this.#counters.fill(0, 0, this.#used)
  }

  /** What has run since `clear`, each block with the class of its count. */
  features(): number[] {
    const features: number[] = []
    for (let block = 0; block < this.#used; block++) {
      const n = this.#counters[block]!
      if (n > 0) features.push(block * CLASSES + CLASS_OF[n]!)
    }
    return features
  }
}

/** The function that instrumented code asks for its counters. */
export const COVERAGE_HOOK = '__vmchannelCoverage'
