/** The system calls of stream sockets, declared once for socket.ts (TCP) and unix-listen.ts (paths). */

import { declare, EAGAIN, EINTR, errno, errnoName, systemError, type NativeFunction } from './libc.ts'

export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
const AF_UNIX = 1
const SOCK_SEQPACKET = 5

export const socketFunction: NativeFunction = declare('int socket(int domain, int type, int protocol)')
export const bindFunction: NativeFunction = declare('int bind(int fd, void *address, unsigned int len)')
export const listenFunction: NativeFunction = declare('int listen(int fd, int backlog)')
export const connectFunction: NativeFunction = declare('int connect(int fd, void *address, unsigned int len)')
export const getsockoptFunction: NativeFunction = declare(
  'int getsockopt(int fd, int level, int name, void *value, void *len)',
)
export const setsockoptFunction: NativeFunction = declare(
  'int setsockopt(int fd, int level, int name, void *value, unsigned int len)',
)
const socketpairFunction = declare('int socketpair(int domain, int type, int protocol, int *fds)')
const shutdownFunction = declare('int shutdown(int fd, int how)')
const acceptFunction = declare('int accept4(int fd, void *address, void *len, int flags)')

/** A connection that waits at a listener, non-blocking and close-on-exec; undefined where there is none. */
export function acceptFd(fd: number, thing = 'listening socket'): number | undefined {
  for (;;) {
    const peer = acceptFunction(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if (peer !== -1) return peer
    const error = errno()
    if (error === EAGAIN) return undefined
    // ECONNABORTED: that one has gone, and hides who waits behind it.
    if (error !== EINTR && errnoName(error) !== 'ECONNABORTED')
      throw systemError('accept4', thing, 'ERR_VMCHANNEL_CHARDEV')
  }
}

const SO_SNDBUF = 7
const SO_DOMAIN = 39
/** Half of what it comes to: Linux doubles it, for its own accounts. */
const WIDE = 256 << 10

/**
 * Widens the send buffer of a unix socket to half a megabyte, where the system allows that (net.core.wmem_max). Such a
 * socket is called writable when three quarters of it are empty: the wider it is, the more the peer still has to read
 * while we are being woken. TCP finds its size by itself; what is no socket is left alone.
 */
export function widenSendBuffer(fd: number): void {
  const value = new Uint8Array(4)
  if (getsockoptFunction(fd, SOL_SOCKET, SO_DOMAIN, value, new Uint8Array([4, 0, 0, 0])) !== 0) return
  if (value[0] !== AF_UNIX) return
  new DataView(value.buffer).setUint32(0, WIDE, true)
  setsockoptFunction(fd, SOL_SOCKET, SO_SNDBUF, value, 4)
}

/** Hangs up for every copy of the descriptor, whoever has it; nothing where it is no socket. */
export function hangUp(fd: number): void {
  shutdownFunction(fd, 2)
}

/**
 * A pair of packet sockets, ours non-blocking; neither goes to programs that are started, unless they are told to take
 * it.
 */
export function packetPair(): { ours: number; theirs: number } {
  const fds = new Int32Array(new ArrayBuffer(8))
  if (socketpairFunction(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, new Uint8Array(fds.buffer)) === -1)
    throw systemError('socketpair', 'keeper')
  return { ours: fds[0]!, theirs: fds[1]! }
}
