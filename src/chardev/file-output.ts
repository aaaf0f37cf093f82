/**
 * Where the output of a `file` goes, as far as it is not there or full: a disk that gets space again, a pipe that is
 * read slowly, a fifo whose reader comes late or comes again. Made by file.ts.
 *
 * A disk says nothing when it has space again: that is tried. A pipe does, and who reads it sets the pace. Nobody says
 * that a fifo has a reader: that is looked at five times a second, and until then the port has nobody at its end.
 */

import { closeSync } from 'node:fs'
import { errnoName } from '../ffi/libc.ts'
import { Watch } from '../ffi/poll.ts'
import { goneErrno, hungUp, pollable, writev } from '../ffi/rw.ts'
import type { Iovec } from '../mem/iovec.ts'
import { GONE, WOULD_BLOCK, type ChardevEnd } from './chardev.ts'

const RETRY_MS = 500
const READER_MS = 200
/** What may pass: no space, over quota, beyond the limit for one file. */
const PASSING: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on its file system',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'it has reached the size limit for a file',
}

export interface FileOutputOptions {
  readonly label: string
  /** Whether it is a fifo: readers come and go. */
  readonly fifo: boolean
  /** Opens it; undefined for a fifo without a reader. Throws where that cannot be. */
  readonly open: () => number | undefined
  /** It was opened; to be kept for a successor. */
  readonly opened?: (fd: number) => void
}

export class FileOutput {
  readonly #port: ChardevEnd
  readonly #options: FileOutputOptions
  /** -1 for a fifo that nobody has read yet. */
  #fd = -1
  #watch: Watch | undefined
  #connected = false
  #blocked = false
  #timer: NodeJS.Timeout | undefined
  #warned = false
  #dead = false
  #closed = false

  /** With `left` it was opened by the process before. Throws where it cannot be opened. */
  constructor(port: ChardevEnd, options: FileOutputOptions, left?: number) {
    this.#port = port
    this.#options = options
    const fd = left ?? options.open()
    if (fd !== undefined) this.#take(fd, left === undefined)
    if (fd === undefined || (options.fifo && hungUp(fd))) this.#await()
    else this.#connected = true
  }

  get connected(): boolean {
    return this.#connected
  }

  writev(list: Iovec): number {
    if (!this.#connected || this.#closed) return GONE
    const done = writev(this.#fd, list)
    if (done === list.total) {
      this.#warned = false
      return done
    }
    if (done === GONE) {
      const errno = errnoName(goneErrno())
      if (errno === 'EPIPE' && this.#options.fifo) return this.#lost()
      const passing = PASSING[errno]
      if (!passing) return this.#fail(errno)
      if (!this.#warned) this.#warn(`cannot write: ${passing}; output waits until there is space`)
      this.#warned = true
    }
    // After fewer than all the port waits for writable().
    if (this.#watch && done !== GONE) this.#block()
    else this.#retry(done > 0 ? 0 : RETRY_MS)
    return done === GONE ? WOULD_BLOCK : done
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#timer)
    this.#watch?.close()
    if (this.#fd !== -1) closeSync(this.#fd)
  }

  #take(fd: number, own: boolean): void {
    this.#fd = fd
    if (pollable(fd)) this.#watch = new Watch(fd, () => this.#onReady())
    if (own) this.#options.opened?.(fd)
    this.#arm()
  }

  /** A fifo is watched for the end of its reader all the time. */
  #arm(): void {
    this.#watch?.want(false, this.#blocked, this.#options.fifo && !this.#dead)
  }

  #block(): void {
    this.#blocked = true
    this.#arm()
  }

  #onReady(): void {
    if (this.#closed) return
    if (this.#options.fifo && hungUp(this.#fd)) {
      if (this.#connected) this.#lost()
      return
    }
    this.#blocked = false
    this.#arm()
    this.#port.writable()
  }

  /** The reader of a fifo has gone. What it has not read stays in the fifo, for the next. */
  #lost(): number {
    this.#connected = false
    this.#blocked = false
    this.#watch?.want(false, false)
    this.#await()
    this.#tell()
    return GONE
  }

  /** Waits for a reader of the fifo. */
  #await(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#look(), READER_MS).unref()
  }

  #look(): void {
    this.#timer = undefined
    try {
      const fd = this.#fd === -1 ? this.#options.open() : undefined
      if (fd !== undefined) this.#take(fd, true)
    } catch (error) {
      this.#warn(error instanceof Error ? error.message : String(error))
      this.#dead = true
      return
    }
    if (this.#fd === -1 || hungUp(this.#fd)) return this.#await()
    this.#connected = true
    this.#arm()
    this.#tell()
  }

  #retry(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#port.writable()
    }, ms)
  }

  #fail(errno: string): number {
    this.#dead = true
    this.#connected = false
    this.#watch?.want(false, false)
    this.#warn(`cannot write: ${errno}; the port is disconnected`)
    this.#tell()
    return GONE
  }

  #warn(message: string): void {
    queueMicrotask(() => {
      if (!this.#closed) this.#port.warn(`${this.#options.label}: ${message}`)
    })
  }

  #tell(): void {
    const connected = this.#connected
    queueMicrotask(() => {
      if (!this.#closed) this.#port.setConnected(connected)
    })
  }
}
