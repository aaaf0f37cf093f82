/**
 * One far end that is a file descriptor, or a pair of them: a connected socket, the master of a pty, fifos, stdio.
 * PeerSlot, pipe and stdio are built on it. Bytes go by one system call between the fd and guest memory; nothing is kept.
 *
 * How a far end leaves, so that no byte is lost and nobody waits for ever:
 * - It hangs up and everything it sent has been read: gone.
 * - It ends its input only (shutdown(SHUT_WR): `printf x | socat`, `nc -N`): the port still writes to it, until it hangs
 *   up, a write fails, or nothing has moved for `halfCloseMs`. 0 is QEMU's way: gone at once.
 * - It hangs up while the port does not read: what it sent stays readable, then gone. Where another peer waits or output
 *   is held up, and the port reads nothing for DRAIN_MS, the rest is dropped with a warning.
 *
 * TCP does not say whether a peer that sent FIN is still there. Such a peer gives way as soon as another one waits.
 */

import { Watch, type Readiness } from '../ffi/poll.ts'
import { goneErrno, hungUp, pollable, readv, setNonBlocking, skim, unread, writev } from '../ffi/rw.ts'
import { widenSendBuffer } from '../ffi/socket-calls.ts'
import type { Iovec } from '../mem/iovec.ts'
import { AlwaysReady } from './always-ready.ts'
import { GONE, WOULD_BLOCK } from './chardev.ts'

/** How long unread input of a far end that has left may hold up others. */
const DRAIN_MS = 5000
const TICK_MS = 200
export const HALF_CLOSE_MS = 2000

export interface FdEndOptions {
  /** Where to read and write; -1 for a direction that does not exist. The same number for a two-way fd. */
  input: number
  output: number
  /** Idle time granted to a far end that has ended its input; Infinity where the directions are independent. */
  halfCloseMs: number
  /** Whether somebody else waits for this place. */
  contested?: () => boolean
  /** A hang-up cannot be told from an end of input (TCP). */
  silentHangup?: boolean
}

/** Called from the event loop only. */
export interface FdEndOwner {
  readable(): void
  writable(): void
  /** The far end is gone; once. The owner closes this end and its fds. */
  gone(): void
  warn(message: string): void
}

export class FdEnd {
  readonly #owner: FdEndOwner
  readonly #options: FdEndOptions
  readonly #input: number
  readonly #output: number
  readonly #watch: Watch | AlwaysReady
  /** Only where the output is another fd. */
  readonly #outputWatch: Watch | AlwaysReady | undefined
  #reading = false
  /** The last write took less than it was given. */
  #blocked = false
  /** Nothing more comes in: end of file seen. */
  #inputOver: boolean
  /** Writes fail, but there is input left. */
  #outputOver = false
  #hangupSeen = false
  #dead = false
  #closed = false
  #timer: NodeJS.Timeout | undefined
  /** When a byte moved last; kept only while the timer runs. */
  #moved = 0

  constructor(owner: FdEndOwner, options: FdEndOptions) {
    this.#owner = owner
    this.#options = options
    this.#input = options.input
    this.#output = options.output
    this.#inputOver = options.input === -1
    this.#watch = watchFd(options.input === -1 ? options.output : options.input, (ready) => this.#onReady(ready))
    if (options.input !== -1 && options.output !== -1 && options.output !== options.input)
      this.#outputWatch = watchFd(options.output, () => this.#onWritable())
    if (options.output !== -1) widenSendBuffer(options.output)
    this.#arm()
  }

  /** The far end has left; there may be input to read. */
  get departed(): boolean {
    return this.#dead || (this.#input !== -1 && hungUp(this.#input))
  }

  /** The same, and nothing of it is left to read. That it has left may be seen only a tick later. */
  get over(): boolean {
    return this.departed && (this.#dead || this.#inputOver || unread(this.#input) === 0)
  }

  writev(list: Iovec): number {
    if (this.#dead) return GONE
    if (this.#output === -1) return list.total
    if (!this.#outputOver) {
      const done = writev(this.#output, list)
      if (done > 0) {
        if (this.#timer) this.#moved = performance.now()
        if (done < list.total) this.#block()
        return done
      }
      if (done === GONE) {
        if (this.#inputOver || this.#outputWatch || unread(this.#input) === 0) return this.#die()
        this.#outputOver = true
        this.#startTimer()
      }
    }
    this.#block()
    return WOULD_BLOCK
  }

  readv(list: Iovec): number {
    if (this.#dead) return GONE
    if (this.#inputOver) return WOULD_BLOCK
    const done = readv(this.#input, list)
    if (done > 0) {
      if (this.#timer) this.#moved = performance.now()
      return done
    }
    return done === GONE ? this.#endInput(goneErrno() !== 0) : WOULD_BLOCK
  }

  setReading(on: boolean): void {
    if (this.#reading === on) return
    this.#reading = on
    this.#arm()
  }

  discardInput(): number {
    if (this.#dead || this.#inputOver) return 0
    const sum = skim(this.#input, unread(this.#input))
    if (this.#hangupSeen || hungUp(this.#input)) this.#hangup()
    return sum
  }

  /** Stops watching; the fds stay open and are their owner's. */
  close(): void {
    this.#closed = true
    this.#stop()
  }

  #stop(): void {
    this.#dead = true
    clearInterval(this.#timer)
    this.#watch.close()
    this.#outputWatch?.close()
  }

  /** Nothing is left to do here; tells the owner from the event loop. */
  #die(): number {
    if (!this.#dead) {
      this.#stop()
      queueMicrotask(() => {
        if (!this.#closed) this.#owner.gone()
      })
    }
    return GONE
  }

  #block(): void {
    if (this.#blocked) return
    this.#blocked = true
    this.#arm()
  }

  #arm(): void {
    if (this.#dead) return
    const read = this.#reading && !this.#inputOver
    const write = this.#blocked && !this.#outputOver
    // Level-triggered all three: whoever leaves one on after it was reported spins.
    const hangup = !this.#reading && !this.#inputOver && !this.#hangupSeen
    if (this.#outputWatch) {
      this.#watch.want(read, false, hangup)
      this.#outputWatch.want(false, write, false)
    } else this.#watch.want(read, write, hangup)
  }

  #onReady(ready: Readiness): void {
    if (this.#dead) return
    if (ready.disconnect) {
      // After an error libuv has stopped the watch by itself: have it started again.
      this.#watch.want(false, false, false)
      this.#hangup()
    }
    if (!this.#dead && ready.readable && this.#reading && !this.#inputOver) this.#owner.readable()
    if (ready.writable) this.#onWritable()
  }

  #onWritable(): void {
    if (this.#dead || !this.#blocked) return
    this.#blocked = false
    this.#arm()
    this.#owner.writable()
  }

  /** The far end has ended its side, or all of it; seen while the port does not read, or after an error. */
  #hangup(): void {
    this.#hangupSeen = true
    const empty = this.#inputOver || unread(this.#input) === 0
    if (empty) this.#endInput(false)
    else if (!this.#dead) {
      if (!this.#outputWatch && hungUp(this.#input)) this.#outputOver = true
      this.#startTimer()
      this.#arm()
    }
  }

  #endInput(failed: boolean): number {
    if (failed || this.#options.halfCloseMs === 0 || this.#outputOver || this.#output === -1) return this.#die()
    if (!this.#outputWatch && hungUp(this.#output)) return this.#die()
    this.#inputOver = true
    this.#startTimer()
    this.#arm()
    return WOULD_BLOCK
  }

  #startTimer(): void {
    if (this.#timer || this.#outputWatch) return
    this.#moved = performance.now()
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref()
  }

  #tick(): void {
    const idle = performance.now() - this.#moved
    const { halfCloseMs, contested, silentHangup } = this.#options
    if (this.#inputOver) {
      if (hungUp(this.#output) || (idle >= halfCloseMs && !this.#blocked) || (silentHangup && contested?.()))
        this.#die()
      return
    }
    const gone = hungUp(this.#input)
    if (this.#outputOver && !gone) {
      // A pty that somebody has opened again.
      this.#outputOver = false
      this.#hangupSeen = false
      clearInterval(this.#timer)
      this.#timer = undefined
      this.#arm()
      return
    }
    this.#outputOver = gone
    const heldUp = this.#outputOver && this.#blocked
    if (idle < DRAIN_MS || !(heldUp || contested?.())) return
    const lost = skim(this.#input, unread(this.#input))
    this.#die()
    this.#owner.warn(`${lost} bytes from a peer that has left were not read for ${DRAIN_MS / 1000} s and are dropped`)
  }
}

function watchFd(fd: number, onReady: (ready: Readiness) => void): Watch | AlwaysReady {
  if (!pollable(fd)) return new AlwaysReady(onReady)
  setNonBlocking(fd)
  return new Watch(fd, onReady)
}
