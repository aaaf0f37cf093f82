/**
 * The terminal, pipes or files that the process was started with. A terminal is in raw mode while the port has it, and
 * put back however this process ends, short of SIGKILL. One port only. Called by the registry.
 */

import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { setNonBlocking } from '../ffi/rw.ts'
import { rawMode, setTerminalMode, terminalMode } from '../ffi/tty.ts'
import { recallFd, type Store } from '../store.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { FdPair } from './fd-pair.ts'
import { formatChardevSpec, type StdioSpec } from './spec.ts'
import { watchTerminalSize } from './terminal-size.ts'

const STDIN = 0
const STDOUT = 1
const ENDINGS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']

let taken = false

export function openStdio(spec: StdioSpec, end: ChardevEnd, _signal?: AbortSignal, store?: Store): Chardev {
  if (taken)
    throw new VmchannelError('ERR_VMCHANNEL_IN_USE', 'stdio: another port of this process has it already', {
      hint: 'use unix:, pty or file: for one of the two',
    })
  taken = true
  const restore: (() => void)[] = []
  const undo = (): void => {
    for (const step of restore.splice(0).toReversed()) step()
    taken = false
  }
  try {
    const input = own(STDIN, 'input', constants.O_RDONLY, restore, store)
    const output = own(STDOUT, 'output', constants.O_WRONLY, restore, store)
    if (input !== -1) makeRaw(input, spec.signal ?? true, restore, store)
    const size = output === -1 ? input : output
    if (size !== -1 && terminalMode(size))
      restore.push(watchTerminalSize(size, (cols, rows) => end.resized(cols, rows)))
    if (input === -1 && output === -1)
      throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', 'stdio: both standard input and output are closed', {
        hint: 'start the process with stdio, or use unix:, pty or file:',
      })
    return new FdPair(end, { label: formatChardevSpec(spec), input, output, release: undo })
  } catch (error) {
    undo()
    throw error
  }
}

/**
 * An open of our own where the kernel gives one, since non-blocking mode would be shared with the shell and everybody
 * else at this terminal. Sockets give none: there the mode is put back at the end. A regular file stays as it was
 * given: a new open of it would start at its beginning.
 */
function own(fd: number, name: string, flags: number, restore: (() => void)[], store: Store | undefined): number {
  const left = recallFd(store, name)
  if (left !== undefined) {
    restore.push(() => closeSync(left))
    return left
  }
  try {
    if (fstatSync(fd).isFile()) return fd
    const copy = openSync(`/proc/self/fd/${fd}`, flags | constants.O_NONBLOCK | constants.O_NOCTTY)
    restore.push(() => closeSync(copy))
    store?.keep(name, [copy])
    return copy
  } catch (error) {
    // EBADF: closed. Anything else: a socket, or a terminal that belongs to another user.
    if (['EBADF', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return -1
    if (setNonBlocking(fd)) restore.push(() => void setNonBlocking(fd, false))
    return fd
  }
}

function makeRaw(fd: number, signals: boolean, restore: (() => void)[], store: Store | undefined): void {
  // A process that was killed has not put the terminal back: its mode now is not the one to return to.
  const left = store?.recall('mode')
  const before = left ? Uint8Array.from(Buffer.from(left.note, 'hex')) : terminalMode(fd)
  if (!before) return
  if (!left) store?.keep('mode', [], Buffer.from(before).toString('hex'))
  const raw = rawMode(before, { signals, output: true })
  const putBack = (): void => setTerminalMode(fd, before)
  const onExit = (): void => putBack()
  const onSignal = (signal: NodeJS.Signals): void => {
    putBack()
    // Nobody else handles it: let it end the process as it would have.
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal)
  }
  // After Ctrl-Z the shell has put its own mode back.
  const onContinue = (): void => setTerminalMode(fd, raw)
  process.on('exit', onExit)
  process.on('SIGCONT', onContinue)
  for (const signal of ENDINGS) process.once(signal, onSignal)
  setTerminalMode(fd, raw)
  restore.push(() => {
    process.off('exit', onExit)
    process.off('SIGCONT', onContinue)
    for (const signal of ENDINGS) process.off(signal, onSignal)
    putBack()
  })
}
