/**
 * Stands in for a Watch where the event loop cannot watch: regular files and devices like /dev/null are always ready.
 * FdEnd uses it when stdio is redirected to one. One report per turn of the event loop, so that others get theirs.
 */

import type { Readiness } from '../ffi/poll.ts'

export class AlwaysReady {
  readonly #onReady: (ready: Readiness) => void
  #readable = false
  #writable = false
  #immediate: NodeJS.Immediate | undefined

  constructor(onReady: (ready: Readiness) => void) {
    this.#onReady = onReady
  }

  want(readable: boolean, writable: boolean, _disconnect = false): void {
    this.#readable = readable
    this.#writable = writable
    if (readable || writable) this.#immediate ??= setImmediate(() => this.#report())
  }

  close(): void {
    this.want(false, false)
    clearImmediate(this.#immediate)
    this.#immediate = undefined
  }

  #report(): void {
    this.#immediate = undefined
    if (!this.#readable && !this.#writable) return
    const ready = { readable: this.#readable, writable: this.#writable, disconnect: false }
    // Armed first: the report may close this.
    this.want(this.#readable, this.#writable)
    this.#onReady(ready)
  }
}
