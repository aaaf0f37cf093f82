/**
 * Becomes another program: execve in this very process, so that process id, parent, standard streams, exit status and
 * signals are the new program's own. Called by the QEMU wrapper as its last step.
 *
 * Node has left traces that survive an exec; they are undone here: ignored signals (SIGPIPE, SIGXFSZ), the signal mask,
 * flags of the standard streams. Other threads, handlers and everything close-on-exec go by themselves.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { addressOf, check, declare, systemError } from './libc.ts'

const execveFunction = declare('int execve(const char *path, const void *argv, const void *envp)')
const execvFunction = declare('int execv(const char *path, const void *argv)')
const signalFunction = declare('intptr_t signal(int signum, intptr_t handler)')
const sigprocmaskFunction = declare('int pthread_sigmask(int how, const void *set, void *old)')
const fcntlFunction = declare('int fcntl(int fd, int command, int64_t argument)')

const SIG_DFL = 0
const SIG_IGN = 1
const SIG_SETMASK = 2
const F_GETFD = 1
const F_SETFD = 2
const F_GETFL = 3
const F_SETFL = 4
const FD_CLOEXEC = 1
const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000
const O_ACCMODE = 3
const O_RDONLY = 0
const O_WRONLY = 1
/** sizeof(sigset_t), in glibc and musl alike; all zero is the empty set. */
const SIGSET_BYTES = 128

export interface ExecOptions {
  /** The whole environment; this process's own, byte for byte, where it is left out. */
  env?: Readonly<Record<string, string>>
  /** File status flags of 0, 1 and 2 as they were (see stdioFlags); without it O_NONBLOCK is taken off them. */
  stdioFlags?: readonly (number | undefined)[]
  /** Descriptors from 3 on that the new program gets: Node has marked all that it inherited as close-on-exec. */
  keepFds?: readonly number[]
  /** Descriptors that somebody else has by now, and the new program should not have; goes before keepFds. */
  closeFds?: readonly number[]
}

/** What Node itself holds at its start, besides pipes. */
const NODES_OWN = /^anon_inode:\[(eventpoll|eventfd|io_uring)\]$/

export interface Descriptor {
  fd: number
  /** What /proc/self/fd says. */
  target: string
  /** What open(2) would have been given, FD_CLOEXEC as O_CLOEXEC. */
  flags: number
}

/** Descriptors from 3 on that this process was given by its parent; to be asked before anything else is opened. */
export function inheritedFds(): number[] {
  const all: Descriptor[] = []
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name)
    try {
      const target = readlinkSync(`/proc/self/fd/${name}`)
      const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${name}`, 'latin1'))?.[1] ?? '0'
      if (fd > 2) all.push({ fd, target, flags: Number.parseInt(flags, 8) })
    } catch {
      // the directory that was just read
    }
  }
  return all
    .filter((one) => !isNodes(one, all))
    .map(({ fd }) => fd)
    .toSorted((a, b) => a - b)
}

/**
 * Whether Node has opened it for itself: close-on-exec, and an event descriptor or one of the two ends of a pipe, both
 * of which are here once. What a parent hands over of just this kind cannot be told from it.
 */
export function isNodes({ target, flags }: Descriptor, all: readonly Descriptor[]): boolean {
  if ((flags & O_CLOEXEC) === 0) return false
  if (!target.startsWith('pipe:')) return NODES_OWN.test(target)
  const modes = all.filter((one) => one.target === target).map((one) => one.flags & O_ACCMODE)
  return modes.length === 2 && modes.includes(O_RDONLY) && modes.includes(O_WRONLY)
}

/** Says whether the programs that this process starts get a descriptor. */
export function setInheritable(fd: number, on: boolean): void {
  check(fcntlFunction(fd, F_SETFD, on ? 0 : FD_CLOEXEC), 'fcntl', `descriptor ${fd}`)
}

/** File status flags of 0, 1 and 2; to be taken before the first use of process.stdin, stdout or stderr. */
export function stdioFlags(): (number | undefined)[] {
  return [0, 1, 2].map((fd) => {
    const flags = fcntlFunction(fd, F_GETFL, 0)
    return flags === -1 ? undefined : flags
  })
}

/**
 * Runs `path` with `argv` (whose first word is the program's own name) in place of this program. Returns only by
 * throwing: the file is missing, not executable, or the arguments are too long. The process is then as it was.
 */
export function execve(path: string, argv: readonly (string | Uint8Array)[], options: ExecOptions = {}): never {
  const file = cString(path)
  const args = stringVector(argv)
  const { env } = options
  const environment = env && stringVector(Object.entries(env).map(([key, value]) => `${key}=${value}`))
  const undo: (() => void)[] = []
  prepareDescriptors(options, undo)
  prepareSignals(undo)
  if (environment) execveFunction(file, args, environment)
  else execvFunction(file, args)
  const failure = systemError('execve', path, 'ERR_VMCHANNEL_QEMU')
  for (const step of undo.toReversed()) step()
  throw failure
}

function prepareSignals(undo: (() => void)[]): void {
  for (const signal of ignoredSignals()) {
    signalFunction(signal, SIG_DFL)
    undo.push(() => signalFunction(signal, SIG_IGN))
  }
  const old = new Uint8Array(SIGSET_BYTES)
  sigprocmaskFunction(SIG_SETMASK, new Uint8Array(SIGSET_BYTES), old)
  undo.push(() => sigprocmaskFunction(SIG_SETMASK, old, null))
}

/** The signals that this process ignores; caught ones become default by the exec itself. */
function ignoredSignals(): number[] {
  const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]
  const bits = BigInt(`0x${mask ?? '0'}`)
  return Array.from({ length: 64 }, (_, index) => index + 1).filter((signal) => (bits >> BigInt(signal - 1)) & 1n)
}

function prepareDescriptors(options: ExecOptions, undo: (() => void)[]): void {
  for (const fd of [0, 1, 2]) {
    setFlags(fd, F_GETFD, F_SETFD, (flags) => flags & ~FD_CLOEXEC, undo)
    // The flag sits in the open file, which the shell and other programs have as well.
    const known = options.stdioFlags?.[fd]
    setFlags(fd, F_GETFL, F_SETFL, (flags) => known ?? flags & ~O_NONBLOCK, undo)
  }
  for (const fd of options.keepFds ?? []) setFlags(fd, F_GETFD, F_SETFD, (flags) => flags & ~FD_CLOEXEC, undo)
  // Marked rather than closed: nothing is lost if the exec fails.
  for (const fd of options.closeFds ?? []) setFlags(fd, F_GETFD, F_SETFD, (flags) => flags | FD_CLOEXEC, undo)
}

function setFlags(fd: number, get: number, set: number, change: (flags: number) => number, undo: (() => void)[]): void {
  const flags = fcntlFunction(fd, get, 0)
  if (flags === -1 || change(flags) === flags) return
  fcntlFunction(fd, set, change(flags))
  undo.push(() => fcntlFunction(fd, set, flags))
}

function bytesOf(word: string | Uint8Array): Uint8Array {
  const bytes = typeof word === 'string' ? new TextEncoder().encode(word) : word
  if (bytes.includes(0)) {
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', 'an argument of a program has a NUL byte in it')
  }
  return bytes
}

function cString(text: string): Uint8Array {
  const bytes = bytesOf(text)
  const result = new Uint8Array(new ArrayBuffer(bytes.length + 1))
  result.set(bytes)
  return result
}

/**
 * A NULL-terminated char *[] with its strings behind it, all in one piece of memory outside V8's heap: it cannot move,
 * and whoever holds the array holds the strings.
 */
function stringVector(words: readonly (string | Uint8Array)[]): Uint8Array {
  const strings = words.map(bytesOf)
  const head = (strings.length + 1) * 8
  const total = strings.reduce((sum, bytes) => sum + bytes.length + 1, head)
  const vector = new Uint8Array(new ArrayBuffer(total))
  const view = new DataView(vector.buffer)
  const base = addressOf(vector)
  let at = head
  for (const [index, bytes] of strings.entries()) {
    view.setBigUint64(index * 8, base + BigInt(at), true)
    vector.set(bytes, at)
    at += bytes.length + 1
  }
  return vector
}
