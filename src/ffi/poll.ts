/**
 * Readiness of any file descriptor on Node's own event loop (libuv's uv_poll, level-triggered).
 *
 * One watch per fd at a time: libuv refuses a second. Regular files cannot be polled (epoll says EPERM). The fd becomes
 * non-blocking, and must be closed by its owner only after `close()` here.
 */

import koffi from 'koffi'

export interface Readiness {
  readable: boolean
  writable: boolean
  /** The other end hung up. */
  disconnect: boolean
}

type PollHandle = ReturnType<typeof koffi.node.poll>
// The callback really gets (status, events), unlike koffi's own declaration.
type PollCallback = (status: number, ready: Readiness) => void

/** Watches one fd; starts with no interest. */
export class Watch {
  readonly fd: number
  #handle: PollHandle | undefined
  #wanted = 0
  readonly #onReady: (ready: Readiness) => void

  constructor(fd: number, onReady: (ready: Readiness) => void) {
    this.fd = fd
    this.#onReady = onReady
  }

  /**
   * Changes what is waited for. Cheap when nothing changes. All three are level-triggered: drop `disconnect` once it
   * was reported, or it is reported for ever.
   */
  want(readable: boolean, writable: boolean, disconnect = false): void {
    const wanted = (readable ? 1 : 0) | (writable ? 2 : 0) | (disconnect ? 4 : 0)
    if (wanted === this.#wanted) return
    this.#wanted = wanted
    if (wanted === 0) {
      this.#handle?.stop()
      return
    }
    const options = { readable, writable, disconnect }
    const callback: PollCallback = (status, ready) => {
      // An exception that leaves a native callback ends the process without a word: hand it to Node instead.
      try {
        // After an error libuv has stopped the handle: the next `want` has to start it anew, even with the same wish.
        if (status < 0) this.#wanted = 0
        this.#onReady(status < 0 ? { readable: true, writable: true, disconnect: true } : ready)
      } catch (error) {
        setImmediate(() => {
          throw error
        })
      }
    }
    if (this.#handle) this.#handle.start(options, callback as never)
    else this.#handle = koffi.node.poll(this.fd, options, callback as never)
  }

  /** Stops for good; the fd itself stays open. */
  close(): void {
    this.#handle?.close()
    this.#handle = undefined
    this.#wanted = 0
  }

  /** Lets the process end although this watch is active. */
  unref(): void {
    this.#handle?.unref()
  }
}
