/**
 * One of our back ends as a -chardev of QEMU, the way back of chardev.ts, for ports on QEMU's own device. What QEMU has
 * not is said (`lost`), or refused where the port would lead nowhere. Called by own-device.ts.
 */

import { escapeOption } from '../chardev/options.ts'
import type { ChardevSpec, TcpSpec, UnixSpec } from '../chardev/spec.ts'
import { VmchannelError } from '../errors.ts'

export interface QemuChardev {
  /** For -chardev, with this id. */
  option: string
  /** One line for each option that has no effect: "half-close-ms=5: …". */
  lost: string[]
}

/** QEMU takes milliseconds, and makes links to its ptys. */
const NEW_CHARDEV = [9, 2]
const HERE = "on QEMU's own device"

/** `argument` is what messages call the port. Throws where QEMU cannot do it at all. */
export function toQemuChardev(spec: ChardevSpec, id: string, version: string, argument: string): QemuChardev {
  const lost: string[] = []
  const words = (backend: string, options: Readonly<Record<string, string | number | boolean | undefined>>): string =>
    [backend, `id=${id}`, ...Object.entries(options).flatMap(([key, value]) => write(key, value))].join(',')
  if ('halfCloseMs' in spec && spec.halfCloseMs !== undefined)
    lost.push(`half-close-ms has no effect ${HERE}: a peer that ends its input is gone at once`)
  switch (spec.kind) {
    case 'unix': {
      if (spec.mode !== undefined)
        lost.push(`mode has no effect ${HERE}: the socket has the permission bits that the umask leaves`)
      const { path, fd } = spec
      return { option: words('socket', { path, fd, ...socketOptions(spec, version) }), lost }
    }
    case 'tcp': {
      const { host = 'localhost', port, nodelay = true, ipv4, ipv6 } = spec
      const options = socketOptions(spec, version)
      return { option: words('socket', { host, port, ...options, nodelay, ipv4, ipv6 }), lost }
    }
    case 'pty':
      if (spec.path !== undefined && !atLeast(version, NEW_CHARDEV))
        throw cannot(
          argument,
          `QEMU ${version} makes no link to a pty`,
          'leave the path out: QEMU says which pty it is',
        )
      return { option: words('pty', { path: spec.path }), lost }
    case 'stdio':
      return { option: words('stdio', { signal: spec.signal }), lost }
    case 'file':
      if (spec.inputPath !== undefined && !atLeast(version, NEW_CHARDEV))
        throw cannot(argument, `QEMU ${version} has no input-path`, 'use pipe:PATH, or unix:PATH')
      return { option: words('file', { path: spec.path, append: spec.append, 'input-path': spec.inputPath }), lost }
    case 'pipe':
      return { option: words('pipe', { path: spec.path }), lost }
    case 'null':
      return { option: words('null', {}), lost }
    case 'attach':
      throw cannot(argument, `attach leads to a device process, there is none for a port ${HERE}`, 'use unix:PATH')
  }
}

function socketOptions(spec: UnixSpec | TcpSpec, version: string): Record<string, string | number | boolean> {
  if (spec.server !== false) return { server: true, wait: spec.wait ?? false }
  const { reconnectMs = 0 } = spec
  if (reconnectMs === 0) return { server: false }
  if (atLeast(version, NEW_CHARDEV)) return { server: false, 'reconnect-ms': reconnectMs }
  return { server: false, reconnect: Math.ceil(reconnectMs / 1000) }
}

function write(key: string, value: string | number | boolean | undefined): string[] {
  if (value === undefined) return []
  if (typeof value === 'boolean') return [`${key}=${value ? 'on' : 'off'}`]
  return [`${key}=${escapeOption(String(value))}`]
}

function atLeast(version: string, [major = 0, minor = 0]: readonly number[]): boolean {
  const [a = 0, b = 0] = version.split('.').map(Number)
  return a > major || (a === major && b >= minor)
}

function cannot(argument: string, what: string, hint: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_USAGE', `${argument}: ${what}`, { hint })
}
