/**
 * Named pipes, QEMU's `pipe`: PATH.in brings bytes to the guest, PATH.out takes them from it. Without those two PATH
 * itself: a fifo gets the guest's output, a character device (a serial line) works both ways. Called by the registry.
 */

import { closeSync, constants, openSync, statSync, type Stats } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { recallFd, type Store } from '../store.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { FdPair } from './fd-pair.ts'
import { formatChardevSpec, type PipeSpec } from './spec.ts'

export function openPipe(spec: PipeSpec, end: ChardevEnd, _signal?: AbortSignal, store?: Store): Chardev {
  const label = formatChardevSpec(spec)
  const { path } = spec
  const left = store?.recall('output')
  if (left) {
    const output = left.fds[0]!
    // What the path led to then is in the note: it may be gone, or something else.
    const input = left.note === 'fifo' ? -1 : (recallFd(store, 'input') ?? output)
    return pair(end, label, input, output)
  }
  const both = look(`${path}.in`) !== undefined || look(`${path}.out`) !== undefined
  if (!both) {
    const found = look(path)
    if (!found) throw cannot(path, 'it does not exist', `make the two ways with "mkfifo ${path}.in ${path}.out"`)
    const fd = open(path)
    const fifo = found.isFIFO()
    store?.keep('output', [fd], fifo ? 'fifo' : '')
    return pair(end, label, fifo ? -1 : fd, fd)
  }
  const input = open(`${path}.in`)
  try {
    const output = open(`${path}.out`)
    // What lies in a fifo is lost when nobody has it open.
    store?.keep('input', [input])
    store?.keep('output', [output])
    return pair(end, label, input, output)
  } catch (error) {
    closeSync(input)
    throw error
  }
}

function pair(end: ChardevEnd, label: string, input: number, output: number): Chardev {
  const release = (): void => {
    for (const fd of new Set([input, output])) if (fd !== -1) closeSync(fd)
  }
  return new FdPair(end, { label, input, output, release })
}

function look(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

/** Both ways, as QEMU does: no waiting for a far end, no end of file when one leaves. */
function open(path: string): number {
  const found = look(path)
  if (!found) throw cannot(path, 'it does not exist', `make it with "mkfifo ${path}"`)
  if (!found.isFIFO() && !found.isCharacterDevice())
    throw cannot(path, 'it is neither a fifo nor a character device', 'for a regular file write file:PATH')
  try {
    return openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code ?? String(cause)
    throw cannot(path, errno === 'EACCES' ? 'no permission' : errno, 'both reading and writing must be allowed', cause)
  }
}

function cannot(path: string, why: string, hint: string, cause?: unknown): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CHARDEV', `cannot open the pipe ${path}: ${why}`, { hint, cause })
}
