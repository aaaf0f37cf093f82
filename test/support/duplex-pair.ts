/** Two streams, each the other's far end, with back-pressure. (Node has its own from 22.6 on.) */
import { Duplex } from 'node:stream'

class End extends Duplex {
  other: End | undefined
  #waiting: (() => void) | undefined

  override _read(): void {
    const done = this.#waiting
    this.#waiting = undefined
    done?.()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.other!.deliver(chunk, done)
  }

  override _final(done: () => void): void {
    this.other!.push(null)
    done()
  }

  deliver(chunk: Buffer, done: () => void): void {
    // Before push, which may ask for more in its course.
    this.#waiting = done
    if (this.push(chunk)) this._read()
  }
}

export function duplexPair(): [Duplex, Duplex] {
  const [a, b] = [new End(), new End()]
  a.other = b
  b.other = a
  return [a, b]
}
