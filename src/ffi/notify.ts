/** sd_notify(3): tells the service manager that started us how far we are. Called by `vmchannel serve`. */

import { check, closeFd, declare } from './libc.ts'

const socketFunction = declare('int socket(int domain, int type, int protocol)')
const sendtoFunction = declare(
  'int64_t sendto(int fd, const void *data, size_t len, int flags, const void *address, unsigned int address_len)',
)

const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
const MSG_NOSIGNAL = 0x4000

/** Sends e.g. "READY=1" to the socket that NOTIFY_SOCKET names; "@" begins a name outside the file system. */
export function notifyManager(path: string, state: string): void {
  const name = new TextEncoder().encode(path)
  const address = new Uint8Array(new ArrayBuffer(2 + name.length + 1))
  address[0] = AF_UNIX
  address.set(name, 2)
  const abstract = path.startsWith('@')
  if (abstract) address[2] = 0
  const data = new TextEncoder().encode(state)
  const bytes = new Uint8Array(new ArrayBuffer(data.length))
  bytes.set(data)
  const fd = check(socketFunction(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'NOTIFY_SOCKET')
  try {
    const len = 2 + name.length + (abstract ? 0 : 1)
    check(sendtoFunction(fd, bytes, bytes.length, MSG_NOSIGNAL, address, len), 'sendto', path)
  } finally {
    closeFd(fd)
  }
}
