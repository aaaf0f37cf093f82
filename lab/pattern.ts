/**
 * The test pattern, the same as `vmtest source` in the guest writes: xorshift32 (13, 17, 5), each state after the
 * seed as four little-endian bytes. Both ends can make it, so only checksums have to be compared.
 */
import { createHash } from 'node:crypto'

export class Pattern {
  #state: number
  /** Bytes of the state not given yet. */
  #left = 0

  constructor(seed = 1) {
    this.#state = seed >>> 0 || 1
  }

  /** The next `len` bytes. */
  take(len: number): Buffer {
    const bytes = Buffer.allocUnsafe(len)
    let x = this.#state
    let left = this.#left
    for (let at = 0; at < len; at++) {
      if (left === 0) {
        x ^= x << 13
        x ^= x >>> 17
        x ^= x << 5
        left = 4
      }
      bytes[at] = x >>> (8 * (4 - left--))
    }
    this.#state = x
    this.#left = left
    return bytes
  }
}

/** What `vmtest sink` should print after it has read the first `len` bytes of the pattern. */
export function patternSha256(len: number, seed = 1): string {
  const pattern = new Pattern(seed)
  const hash = createHash('sha256')
  for (let left = len; left > 0; left -= 1 << 20) hash.update(pattern.take(Math.min(left, 1 << 20)))
  return hash.digest('hex')
}
