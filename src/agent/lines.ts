/**
 * Cuts what an agent sends into lines. What is there of an unfinished one is copied into one buffer that grows, so that
 * memory follows the bytes and not the pieces in which they come. Used by channel.ts.
 */

const NEWLINE = 10
const FIRST_LEN = 4096
/** A buffer that was needed once, for a large answer, is not kept. */
const KEEP_LEN = 1 << 20
const NOTHING = Buffer.alloc(0)

export class LineReader {
  readonly #max: number
  #buffer = NOTHING
  #len = 0

  /** Bytes of the longest line. */
  constructor(max: number) {
    this.#max = max
  }

  /**
   * Calls back with each line that ends in the chunk, which is lent; false stops. False when a line is too long, or at
   * a stop.
   */
  push(chunk: Buffer, line: (bytes: Buffer) => boolean): boolean {
    for (let at = 0; at < chunk.length;) {
      const found = chunk.indexOf(NEWLINE, at)
      const end = found < 0 ? chunk.length : found
      if (this.#len + end - at > this.#max) return false
      if (found < 0) {
        this.#add(chunk, at, end)
        return true
      }
      let bytes = chunk.subarray(at, end)
      if (this.#len > 0) {
        this.#add(chunk, at, end)
        bytes = this.#buffer.subarray(0, this.#len)
        this.#len = 0
      }
      at = end + 1
      if (!line(bytes)) return false
      if (this.#buffer.length > KEEP_LEN && this.#len === 0) this.#buffer = NOTHING
    }
    return true
  }

  /** Forgets everything. */
  clear(): void {
    this.#buffer = NOTHING
    this.#len = 0
  }

  #add(chunk: Buffer, at: number, end: number): void {
    const len = this.#len + end - at
    if (len > this.#buffer.length) {
      const size = Math.min(this.#max, Math.max(FIRST_LEN, 2 * this.#buffer.length, len))
      const larger = Buffer.allocUnsafeSlow(size)
      this.#buffer.copy(larger, 0, 0, this.#len)
      this.#buffer = larger
    }
    chunk.copy(this.#buffer, this.#len, at, end)
    this.#len = len
  }
}
