/** struct sockaddr_un of a path, for unix-listen.ts and unix-probe.ts. */

import { VmchannelError } from '../errors.ts'

export const AF_UNIX = 1
export const ADDRESS_SIZE = 110
/** Bytes a path may have: sun_path without its closing NUL. */
export const UNIX_PATH_MAX = 107

export function unixAddress(path: string): Uint8Array {
  const name = new TextEncoder().encode(path)
  if (name.length === 0 || name.includes(0)) throw usage(`socket path ${JSON.stringify(path)} is not a path`)
  if (name.length > UNIX_PATH_MAX)
    throw usage(
      `socket path ${path} has ${name.length} bytes, a unix socket takes at most ${UNIX_PATH_MAX}`,
      'use a shorter directory, e.g. one below /run or /tmp',
    )
  const address = new Uint8Array(new ArrayBuffer(128))
  address[0] = AF_UNIX
  address.set(name, 2)
  return address
}

function usage(message: string, hint?: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_USAGE', message, hint ? { hint } : {})
}
