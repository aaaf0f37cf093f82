/**
 * What a control connection still has to say. Replies always go; events only while there is room, and the count of those
 * that were left out follows as an event of its own. Called by control-connection.ts.
 */

import { EAGAIN } from '../ffi/libc.ts'
import { sendBytes } from '../ffi/scm.ts'

/** Above this, events are left out, and no requests are read. */
export const OUTPUT_HIGH: number = 256 << 10

export class OutputQueue {
  readonly #fd: number
  #lines: Buffer[] = []
  /** Bytes of the first line that have been sent. */
  #sent = 0
  #size = 0
  #lost = 0

  constructor(fd: number) {
    this.#fd = fd
  }

  get size(): number {
    return this.#size
  }

  get full(): boolean {
    return this.#size >= OUTPUT_HIGH
  }

  reply(line: Buffer): void {
    this.#push(line)
  }

  event(line: Buffer): void {
    if (this.full) this.#lost++
    else {
      this.#tellLost()
      this.#push(line)
    }
  }

  /** Sends what goes now; false when the other side is gone. */
  flush(): boolean {
    for (;;) {
      const first = this.#lines[0]
      if (!first) {
        if (this.#lost === 0) return true
        this.#tellLost()
        continue
      }
      const rest = first.subarray(this.#sent)
      const done = sendBytes(this.#fd, rest, rest.length)
      if (done === -EAGAIN) return true
      if (done < 0) return false
      this.#sent += done
      this.#size -= done
      if (this.#sent < first.length) continue
      this.#lines.shift()
      this.#sent = 0
    }
  }

  #push(line: Buffer): void {
    this.#lines.push(line)
    this.#size += line.length
  }

  #tellLost(): void {
    if (this.#lost === 0) return
    const count = this.#lost
    this.#lost = 0
    this.#push(Buffer.from(`${JSON.stringify({ event: 'lost', count, time: Date.now() })}\n`))
  }
}
