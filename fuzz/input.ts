/**
 * What an episode takes its decisions from. First the bytes of the input; behind them, where there is a seed, a seeded
 * generator, whose decisions are appended to the input; where there is none, zeros. So a mutated byte is another
 * decision, and the bytes that were used are the whole episode again.
 */

/** More than any episode takes; what comes behind is zeros. */
export const INPUT_MAX: number = 1 << 20

const NONE = new Uint8Array(0)

export class Input {
  /** Where each step begins (see `Random.step`): where mutators cut. */
  readonly marks: number[] = []
  /** Called at each step: the harness measures how long one took. */
  onStep: (() => void) | undefined
  #bytes: Uint8Array
  #len: number
  #at = 0
  readonly #records: boolean
  readonly #seeded: boolean
  #state: number

  /** Without `storage` nothing is written down: an input from a seed alone, of any length. */
  constructor(bytes: Uint8Array = NONE, seed?: number, storage?: Uint8Array) {
    this.#records = storage !== undefined
    this.#bytes = storage ?? bytes
    this.#len = Math.min(bytes.length, storage?.length ?? Infinity)
    storage?.set(bytes.subarray(0, this.#len))
    this.#seeded = seed !== undefined
    this.#state = (seed ?? 0) >>> 0
  }

  /** All bytes are used, and there is no seed for more. */
  get ended(): boolean {
    return this.#at >= this.#len && !this.#seeded
  }
  /** What was used: the same episode again. */
  get used(): Uint8Array {
    return this.#bytes.slice(0, this.#at)
  }

  step(): void {
    this.marks.push(this.#at)
    this.onStep?.()
  }

  /** 0 … n - 1, in as few bytes as hold n; n up to 2^32. */
  below(n: number): number {
    const width = n <= 1 ? 0 : n <= 0x100 ? 1 : n <= 0x1_0000 ? 2 : 4
    if (this.#at + width <= this.#len && (width > 0 || !this.#seeded)) return this.#take(width) % Math.max(n, 1)
    if (!this.#seeded) return ((this.#at = this.#len), 0)
    const value = n > 0 ? this.#next() % n : 0
    if (this.#records) this.#append(value, width)
    return value
  }

  #take(width: number): number {
    let value = 0
    for (let i = 0; i < width; i++) value = value * 256 + this.#bytes[this.#at++]!
    return value
  }

  #append(value: number, width: number): void {
    if (this.#at + width > this.#bytes.length) return
    for (let i = width - 1; i >= 0; i--) {
      this.#bytes[this.#at + i] = value
      value = Math.floor(value / 256)
    }
    this.#len = this.#at += width
  }

  /** mulberry32 */
  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    return mix(this.#state)
  }
}

/** Where nothing has to be written down: `len` bytes that follow from one word. */
export function expand(word: number, len: number): Uint8Array {
  const bytes = new Uint8Array(len)
  for (let i = 0; i < len; i++) bytes[i] = mix((word = (word + 0x6d2b79f5) >>> 0))
  return bytes
}

function mix(state: number): number {
  let t = Math.imul(state ^ (state >>> 15), state | 1)
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
  return (t ^ (t >>> 14)) >>> 0
}
