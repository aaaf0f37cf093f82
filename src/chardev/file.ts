/**
 * A file that gets the guest's output, and perhaps another that is its input. Called by the registry.
 *
 * A full disk loses nothing silently: the chardev takes no more, so that the port holds what it can by its policy, warns
 * once, and tries again until there is space.
 */

import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { errnoName } from '../ffi/libc.ts'
import { goneErrno, writev } from '../ffi/rw.ts'
import type { Iovec } from '../mem/iovec.ts'
import { recallFd, type Store } from '../store.ts'
import { GONE, WOULD_BLOCK, type Chardev, type ChardevEnd } from './chardev.ts'
import { FdEnd } from './fd-end.ts'
import { formatChardevSpec, type FileSpec } from './spec.ts'

const RETRY_MS = 500
/** What may pass: no space, over quota, beyond the limit for one file. */
const PASSING: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on its file system',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'it has reached the size limit for a file',
}

export function openFile(spec: FileSpec, end: ChardevEnd, _signal?: AbortSignal, store?: Store): Chardev {
  const { O_WRONLY, O_RDONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_NONBLOCK, O_NOCTTY } = constants
  const left = recallFd(store, 'output')
  const fd = left ?? open(spec.path, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | (spec.append ? O_APPEND : O_TRUNC))
  if (left === undefined) store?.keep('output', [fd])
  let input = recallFd(store, 'input') ?? -1
  try {
    if (spec.inputPath !== undefined && input === -1) {
      // A fifo without a writer would be at its end at once: with both ways open it never is.
      const fifo = statSync(spec.inputPath, { throwIfNoEntry: false })?.isFIFO() ?? false
      input = open(spec.inputPath, (fifo ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY)
      store?.keep('input', [input])
    }
    return new FileChardev(end, formatChardevSpec(spec), fd, input)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function open(path: string, flags: number): number {
  let why: string
  let cause: unknown
  try {
    const fd = openSync(path, flags, 0o666)
    if (!fstatSync(fd).isDirectory()) return fd
    closeSync(fd)
    why = 'it is a directory'
  } catch (error) {
    cause = error
    const errno = (error as NodeJS.ErrnoException).code ?? String(error)
    why = WHY[errno] ?? errno
  }
  const hint = 'choose a regular file in a directory that exists; for fifos write pipe:PATH'
  throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', `cannot open the file ${path}: ${why}`, { hint, cause })
}

const WHY: Readonly<Record<string, string>> = {
  ENOENT: 'it, or its directory, does not exist',
  EACCES: 'no permission',
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of the path is not a directory',
  ENXIO: 'it is a fifo that nobody reads, or a socket',
  EROFS: 'its file system is read-only',
}

/** Beyond a file size limit the kernel sends SIGXFSZ, which would end the process; with a listener it says EFBIG. */
function ignoreFileSizeSignal(): void {
  if (process.listenerCount('SIGXFSZ') === 0) process.on('SIGXFSZ', () => {})
}

class FileChardev implements Chardev {
  readonly label: string
  readonly place: undefined
  readonly #port: ChardevEnd
  readonly #fd: number
  readonly #inputFd: number
  readonly #input: FdEnd | undefined
  #timer: NodeJS.Timeout | undefined
  #warned = false
  #dead = false
  #closed = false

  constructor(port: ChardevEnd, label: string, fd: number, input: number) {
    this.label = label
    this.place = undefined
    this.#port = port
    this.#fd = fd
    this.#inputFd = input
    ignoreFileSizeSignal()
    if (input === -1) return
    this.#input = new FdEnd(
      {
        readable: () => port.readable(),
        writable() {},
        // The input is over; the output goes on.
        gone() {},
        warn: (message) => port.warn(`${label}: ${message}`),
      },
      { input, output: -1, halfCloseMs: Infinity },
    )
  }

  get connected(): boolean {
    return !this.#dead
  }

  writev(list: Iovec): number {
    if (this.#dead || this.#closed) return GONE
    const done = writev(this.#fd, list)
    if (done > 0) {
      // After fewer than all the port waits for writable().
      if (done < list.total) this.#retry(0)
      else this.#warned = false
      return done
    }
    if (done === GONE) {
      const errno = errnoName(goneErrno())
      const passing = PASSING[errno]
      if (!passing) return this.#fail(errno)
      if (!this.#warned)
        queueMicrotask(() =>
          this.#port.warn(`${this.label}: cannot write: ${passing}; output waits until there is space`),
        )
      this.#warned = true
    }
    this.#retry(RETRY_MS)
    return WOULD_BLOCK
  }

  readv(list: Iovec): number {
    const done = this.#input?.readv(list) ?? WOULD_BLOCK
    return done === GONE ? WOULD_BLOCK : done
  }

  setReading(on: boolean): void {
    this.#input?.setReading(on)
  }

  discardInput(): number {
    return this.#input?.discardInput() ?? 0
  }

  disconnect(): void {}

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#timer)
    this.#input?.close()
    if (this.#inputFd !== -1) closeSync(this.#inputFd)
    closeSync(this.#fd)
  }

  #retry(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#port.writable()
    }, ms)
  }

  #fail(errno: string): number {
    this.#dead = true
    queueMicrotask(() => {
      if (this.#closed) return
      this.#port.warn(`${this.label}: cannot write: ${errno}; the port is disconnected`)
      this.#port.setConnected(false)
    })
    return GONE
  }
}
