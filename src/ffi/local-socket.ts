/**
 * What a server of path sockets needs beside listening: who is at the other end, and a read that never waits. Also the
 * redirection of standard descriptors. Called by the device process.
 */

import { constants } from 'node:fs'
import { check, closeFd, declare, EINTR, errno } from './libc.ts'

const getsockoptFunction = declare('int getsockopt(int fd, int level, int name, void *value, void *len)')
const recvFunction = declare('int64_t recv(int fd, void *data, size_t len, int flags)')
const dupFunction = declare('int fcntl(int fd, int command, int argument)')
const dup2Function = declare('int dup2(int from, int to)')
const openFunction = declare('int open(const char *path, int flags)')
const exitFunction = declare('void _exit(int status)')

const SOL_SOCKET = 1
const SO_PEERCRED = 17
const MSG_DONTWAIT = 0x40
const F_DUPFD_CLOEXEC = 1030

export interface PeerCredentials {
  pid: number
  uid: number
  gid: number
}

/** Who connected, as the kernel noted it then (SO_PEERCRED). */
export function peerCredentials(fd: number): PeerCredentials {
  const value = new Uint8Array(new ArrayBuffer(128))
  const len = new Uint8Array([12, 0, 0, 0])
  check(getsockoptFunction(fd, SOL_SOCKET, SO_PEERCRED, value, len), 'getsockopt', 'control socket')
  const view = new DataView(value.buffer)
  return { pid: view.getInt32(0, true), uid: view.getUint32(4, true), gid: view.getUint32(8, true) }
}

/** Receives into `into` without waiting: bytes, 0 at the end, or -errno. Descriptors that come along are closed by the kernel. */
export function receiveBytes(fd: number, into: Uint8Array): number {
  for (;;) {
    const result = recvFunction(fd, into, into.length, MSG_DONTWAIT)
    if (result !== -1) return result
    const code = errno()
    if (code !== EINTR) return -code
  }
}

/** A copy of `fd` that programs started later do not inherit. */
export function duplicate(fd: number): number {
  return check(dupFunction(fd, F_DUPFD_CLOEXEC, 3), 'fcntl', `descriptor ${fd}`)
}

/** Makes `to` the same open file as `from`. */
export function redirect(from: number, to: number): void {
  check(dup2Function(from, to), 'dup2', `descriptor ${to}`)
}

/** Points a standard descriptor at /dev/null, so that its number is not given to something else. */
export function silence(fd: number): void {
  const nothing = check(openFunction('/dev/null', constants.O_RDWR), 'open', '/dev/null')
  redirect(nothing, fd)
  if (nothing !== fd) closeFd(nothing)
}

/** Ends the process at once: no handlers, no threads waited for. */
export function exitNow(status: number): void {
  exitFunction(status)
}
