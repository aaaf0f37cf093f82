/**
 * Which QEMU to run: what the user said, or the first one in PATH. Called by the wrapper before the probe.
 */

import { accessSync, constants, realpathSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { VmchannelError } from '../errors.ts'

/** Names to look for where nothing is said; the second is how some distributions call theirs, outside PATH. */
const DEFAULTS = ['qemu-system-x86_64', 'qemu-kvm', '/usr/libexec/qemu-kvm']

const HINT = 'install QEMU 10.1 or later, or name it with --qemu-binary PATH or VMCHANNEL_QEMU=PATH'

/**
 * Finds QEMU: `explicit` (of the command line), else VMCHANNEL_QEMU, else the usual names in PATH. A name without a
 * slash is looked up in PATH. `self` is the wrapper's own file: an emulator that leads back to it is passed over, so
 * that the wrapper may be installed under the name of QEMU.
 */
export function findQemu(env: Readonly<Record<string, string | undefined>>, explicit?: string, self?: string): string {
  const wish = explicit ?? (env['VMCHANNEL_QEMU'] || undefined)
  const source = explicit === undefined ? 'VMCHANNEL_QEMU' : '--qemu-binary'
  if (wish !== undefined && wish.includes('/')) return checkExecutable(wish, source, self)
  for (const name of wish === undefined ? DEFAULTS : [wish]) {
    const found = name.startsWith('/') ? usable(name, self) : inPath(name, env['PATH'] ?? '', self)
    if (found !== undefined) return found
  }
  const what = wish === undefined ? `no ${DEFAULTS[0]} in PATH` : `${source}: no ${wish} in PATH`
  throw new VmchannelError('ERR_VMCHANNEL_QEMU', what, { hint: HINT })
}

function inPath(name: string, path: string, self: string | undefined): string | undefined {
  for (const folder of path.split(delimiter)) {
    // An empty entry is the current folder to the shell; nobody wants QEMU from there.
    const found = folder === '' ? undefined : usable(join(folder, name), self)
    if (found !== undefined) return found
  }
  return undefined
}

function usable(path: string, self: string | undefined): string | undefined {
  return problem(path, self) === undefined ? path : undefined
}

function problem(path: string, self: string | undefined): string | undefined {
  try {
    if (!statSync(path).isFile()) return 'is not a file'
    accessSync(path, constants.X_OK)
    if (self !== undefined && realpathSync(path) === realpathSync(self)) return 'is vmchannel itself'
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'is not executable' : 'does not exist'
  }
}

function checkExecutable(path: string, source: string, self: string | undefined): string {
  const wrong = problem(path, self)
  if (wrong === undefined) return path
  throw new VmchannelError('ERR_VMCHANNEL_QEMU', `${source}: ${path} ${wrong}`, { hint: HINT })
}
