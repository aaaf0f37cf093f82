/**
 * Path sockets (AF_UNIX, stream) without a library in between: who needs descriptors over a socket needs the bare fd.
 *
 * Called by the vfio-user server. The socket is for its owner only (mode 0600); the socket of a process that died is
 * taken over, the one of a living process never is.
 */

import { chmodSync, lstatSync, rmSync, unlinkSync, type BigIntStats } from 'node:fs'
import { dirname } from 'node:path'
import { VmchannelError, type ErrorCode } from '../errors.ts'
import { recallFd, type Store } from '../store.ts'
import { closeFd, EADDRINUSE, ENOENT, errno, errnoName, systemError } from './libc.ts'
import {
  acceptFd,
  bindFunction,
  connectFunction,
  getsockoptFunction,
  listenFunction,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  socketFunction,
  SOL_SOCKET,
} from './socket-calls.ts'
import { ADDRESS_SIZE, AF_UNIX, unixAddress } from './unix-address.ts'
import { probeUnix } from './unix-probe.ts'

const SO_ACCEPTCONN = 30

export interface UnixListener {
  readonly fd: number
  readonly path: string
  /** A connection, non-blocking and close-on-exec; undefined where none is waiting. */
  accept(): number | undefined
  /** Closes, and removes the path if it is still ours. Stop watching `fd` before. */
  close(): void
}

/** Listens at `path`. Throws VmchannelError. */
export function listenUnix(path: string, backlog = 8): UnixListener {
  const address = unixAddress(path)
  const fd = openSocket(path)
  let bound = false
  try {
    if (bindFunction(fd, address, ADDRESS_SIZE) === -1) {
      if (errno() !== EADDRINUSE) throw bindError(path, errno())
      removeStale(path)
      if (bindFunction(fd, address, ADDRESS_SIZE) === -1) throw bindError(path, errno())
    }
    bound = true
    // Nobody can connect before listen(), so there is no moment at which others get in.
    chmodSync(path, 0o600)
    if (listenFunction(fd, backlog) === -1) throw systemError('listen', path)
    const own = lstatSync(path, { bigint: true })
    return { fd, path, accept: () => acceptFd(fd, path), close: () => closeListener(fd, path, own) }
  } catch (error) {
    closeFd(fd)
    if (bound) rmSync(path, { force: true })
    throw error
  }
}

/** The same, where a successor of this process is to have it: or as that successor. */
export function listenKept(path: string, store: Store | undefined, backlog?: number): UnixListener {
  const left = store?.recall('listener')
  const fd = left?.fds[0]
  if (fd !== undefined) {
    // Which file it made is in the note: the path may be gone, or somebody else's, or on a server that does not answer.
    const [dev = 0n, ino = 0n] = left!.note.split(':').map(BigInt)
    const close = (): void => closeListener(fd, path, { dev, ino })
    return { fd, path, accept: () => acceptFd(fd, path), close }
  }
  const listener = listenUnix(path, backlog)
  if (store) {
    const { dev, ino } = lstatSync(path, { bigint: true })
    store.keep('listener', [listener.fd], `${dev}:${ino}`)
  }
  return listener
}

/** A listening socket that somebody else made and handed to this process; its path stays theirs. */
export function adoptListener(given: number, store?: Store): UnixListener {
  const name = `descriptor ${given}`
  const fd = recallFd(store, 'listener') ?? given
  const listening = new Int32Array(1)
  const len = new Uint32Array([4])
  if (getsockoptFunction(fd, SOL_SOCKET, SO_ACCEPTCONN, bytesOf(listening), bytesOf(len)) === -1 || listening[0] !== 1)
    throw new VmchannelError('ERR_VMCHANNEL_CHARDEV', `${name} is not a listening socket of this process`, {
      hint: 'pass a socket that listens, and do not mark it close-on-exec; with server=off a connected one',
    })
  if (fd === given) store?.keep('listener', [fd])
  return { fd, path: name, accept: () => acceptFd(fd, name), close: () => closeFd(fd) }
}

/** Connects to `path`; returns the fd, non-blocking and close-on-exec. Throws VmchannelError. */
export function connectUnix(path: string): number {
  const fd = openSocket(path)
  if (connectFunction(fd, unixAddress(path), ADDRESS_SIZE) === 0) return fd
  const error = systemError('connect', path, errno() === ENOENT ? 'ERR_VMCHANNEL_NOT_FOUND' : 'ERR_VMCHANNEL_CLOSED')
  closeFd(fd)
  throw error
}

function openSocket(path: string): number {
  const fd = socketFunction(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd === -1) throw systemError('socket', path)
  return fd
}

/** Removes a socket that nobody listens at; throws where somebody does, or where it is no socket at all. */
function removeStale(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true })
  if (!found) return
  if (!found.isSocket()) throw usage(`${path} exists and is not a socket`, 'remove it or choose another path')
  const state = probeUnix(path)
  if (state === 'missing') return
  if (state === 'open')
    throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `${path} is in use by a running process`, {
      hint: 'stop that process or choose another path',
      syscall: 'bind',
      errno: 'EADDRINUSE',
    })
  // Another starter may have taken the dead one over since: remove only what was probed. A file system may give the
  // number of a removed socket to the next one, hence the time.
  const now = lstatSync(path, { throwIfNoEntry: false, bigint: true })
  if (now && sameFile(now, found) && now.ctimeNs === found.ctimeNs) unlinkSync(path)
}

function closeListener(fd: number, path: string, own: FileId): void {
  const now = lstatSync(path, { throwIfNoEntry: false, bigint: true })
  if (now && sameFile(now, own)) unlinkSync(path)
  closeFd(fd)
}

type FileId = Pick<BigIntStats, 'dev' | 'ino'>

function sameFile(a: FileId, b: FileId): boolean {
  return a.dev === b.dev && a.ino === b.ino
}

const BIND_FAILURES: Readonly<Record<string, readonly [ErrorCode, string, string]>> = {
  ENOENT: ['ERR_VMCHANNEL_CHARDEV', 'its directory does not exist', 'create the directory or choose another path'],
  ENOTDIR: ['ERR_VMCHANNEL_CHARDEV', 'a part of the path is not a directory', 'choose another path'],
  EACCES: ['ERR_VMCHANNEL_CHARDEV', 'no permission to create it', 'choose a directory that this user may write to'],
  EPERM: ['ERR_VMCHANNEL_CHARDEV', 'this file system takes no sockets', 'choose a path on a local file system'],
  EROFS: ['ERR_VMCHANNEL_CHARDEV', 'its file system is read-only', 'choose another path'],
  EADDRINUSE: ['ERR_VMCHANNEL_IN_USE', 'another process has just taken it', 'choose another path'],
}

function bindError(path: string, code: number): VmchannelError {
  const name = errnoName(code)
  const [kind, why, hint] = BIND_FAILURES[name] ?? ['ERR_VMCHANNEL_INTERNAL', `bind failed with ${name}`, '']
  const what = name === 'ENOENT' ? `${why}: ${dirname(path)}` : why
  return new VmchannelError(kind, `cannot listen at ${path}: ${what}`, {
    errno: name,
    syscall: 'bind',
    ...(hint ? { hint } : {}),
  })
}

function usage(message: string, hint?: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_USAGE', message, hint ? { hint } : {})
}

function bytesOf(words: Int32Array | Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer)
}
