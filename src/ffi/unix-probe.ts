/**
 * Whether a process has a path socket open, found out without any effect on that process. Called before a leftover is
 * removed: of a listener (unix-listen.ts), of a state directory (daemon/own-dir.ts).
 *
 * A stream connection would be a peer: a port sees it come and go, and so does a VMM's socket. The kernel looks at the
 * type of a socket before anything else: connecting with a datagram socket fails with EPROTOTYPE where a stream socket
 * is open at the path, and with ECONNREFUSED where none is. The other process sees neither.
 */

import { closeFd, ECONNREFUSED, ENOENT, errno, systemError } from './libc.ts'
import { connectFunction, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socketFunction } from './socket-calls.ts'
import { ADDRESS_SIZE, AF_UNIX, unixAddress } from './unix-address.ts'

/**
 * 'open': some process has it open, or nobody can say; 'dead': nobody has; 'missing': nothing is at the path. Throws
 * VmchannelError where the path cannot be one, or where there is no descriptor left.
 */
export function probeUnix(path: string): 'open' | 'dead' | 'missing' {
  const address = unixAddress(path)
  const fd = socketFunction(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd === -1) throw systemError('socket', path)
  const code = connectFunction(fd, address, ADDRESS_SIZE) === -1 ? errno() : 0
  closeFd(fd)
  if (code === ENOENT) return 'missing'
  return code === ECONNREFUSED ? 'dead' : 'open'
}
