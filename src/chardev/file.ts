/**
 * A file that gets the guest's output, and perhaps another that is its input. Called by the registry.
 *
 * A full disk loses nothing silently: the chardev takes no more, so that the port holds what it can by its policy,
 * warns once, and tries again until there is space (file-output.ts). A fifo may be read later, and slowly.
 */

import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import type { Iovec } from '../mem/iovec.ts'
import { recallFd, type Store } from '../store.ts'
import { GONE, WOULD_BLOCK, type Chardev, type ChardevEnd } from './chardev.ts'
import { FdEnd } from './fd-end.ts'
import { FileOutput } from './file-output.ts'
import { formatChardevSpec, type FileSpec } from './spec.ts'

export function openFile(spec: FileSpec, end: ChardevEnd, _signal?: AbortSignal, store?: Store): Chardev {
  const { O_WRONLY, O_RDONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_NONBLOCK, O_NOCTTY } = constants
  ignoreFileSizeSignal()
  const left = recallFd(store, 'output')
  const label = formatChardevSpec(spec)
  // What was left is asked, and not its path: that may be gone.
  const waited = store?.recall('fifo') !== undefined
  const fifo = waited || (left === undefined ? isFifo(spec.path) : fstatSync(left).isFIFO())
  if (fifo) store?.keep('fifo', [])
  const plain = O_CREAT | (spec.append ? O_APPEND : O_TRUNC)
  const flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | (fifo ? 0 : plain)
  const output = new FileOutput(
    end,
    { label, fifo, open: () => open(spec.path, flags, fifo), opened: (fd) => store?.keep('output', [fd]) },
    left,
  )
  let input = recallFd(store, 'input') ?? -1
  try {
    if (spec.inputPath !== undefined && input === -1 && left === undefined && !waited) {
      // A fifo without a writer would be at its end at once: with both ways open it never is.
      input = open(spec.inputPath, (isFifo(spec.inputPath) ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY)
      store?.keep('input', [input])
    }
    return new FileChardev(end, label, output, input)
  } catch (error) {
    output.close()
    throw error
  }
}

function isFifo(path: string): boolean {
  try {
    return statSync(path).isFIFO()
  } catch {
    return false
  }
}

/** Undefined for a fifo that may have no reader, and has none. */
function open(path: string, flags: number): number
function open(path: string, flags: number, late: boolean): number | undefined
function open(path: string, flags: number, late = false): number | undefined {
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
    if (late && errno === 'ENXIO') return undefined
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
  ENXIO: 'it is a socket, or a device that is not there',
  EROFS: 'its file system is read-only',
}

/** Beyond a file size limit the kernel sends SIGXFSZ, which would end the process; with a listener it says EFBIG. */
function ignoreFileSizeSignal(): void {
  if (process.listenerCount('SIGXFSZ') === 0) process.on('SIGXFSZ', () => {})
}

class FileChardev implements Chardev {
  readonly label: string
  readonly place: undefined
  readonly #output: FileOutput
  readonly #inputFd: number
  readonly #input: FdEnd | undefined
  #closed = false

  constructor(port: ChardevEnd, label: string, output: FileOutput, input: number) {
    this.label = label
    this.place = undefined
    this.#output = output
    this.#inputFd = input
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
    return this.#output.connected
  }

  writev(list: Iovec): number {
    return this.#output.writev(list)
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
    this.#input?.close()
    if (this.#inputFd !== -1) closeSync(this.#inputFd)
    this.#output.close()
  }
}
