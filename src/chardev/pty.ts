/**
 * A pseudo-terminal: `screen`, `minicom` or a program opens its slave. Connected only while somebody has the slave
 * open; what the guest writes before waits by the port's policy, not in the pty. Called by the registry.
 */

import { existsSync, readlinkSync, symlinkSync, unlinkSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { closeFd } from '../ffi/libc.ts'
import { Watch } from '../ffi/poll.ts'
import { openPty } from '../ffi/pty.ts'
import { hungUp, skim, unread } from '../ffi/rw.ts'
import type { Store } from '../store.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { PeerSlot } from './peer-slot.ts'
import { formatChardevSpec, type PtySpec } from './spec.ts'
import { watchTerminalSize } from './terminal-size.ts'

/** How often to look for a user of the slave where inotify cannot be had. */
const LOOK_MS = 250

export function openPtyChardev(spec: PtySpec, end: ChardevEnd, _signal?: AbortSignal, store?: Store): Chardev {
  const left = store?.recall('pty')
  const pty = left ? { fd: left.fds[0]!, name: left.note, opens: left.fds[1] ?? -1 } : openPty()
  try {
    if (spec.path !== undefined && !left) makeLink(pty.name, spec.path)
    if (!left) store?.keep('pty', pty.opens === -1 ? [pty.fd] : [pty.fd, pty.opens], pty.name)
  } catch (error) {
    closeFd(pty.fd)
    if (pty.opens !== -1) closeFd(pty.opens)
    throw error
  }
  const watch = pty.opens === -1 ? undefined : new Watch(pty.opens, () => look())
  let timer: NodeJS.Timeout | undefined
  let stopSize: (() => void) | undefined
  const slot = new PeerSlot(end, {
    label: formatChardevSpec(spec),
    halfCloseMs: 0,
    // One master for all who come and go.
    release: () => {
      stopSize?.()
      stopSize = undefined
    },
    onVacant: () => look(),
    onClose: () => {
      watch?.close()
      clearInterval(timer)
      if (pty.opens !== -1) closeFd(pty.opens)
      closeFd(pty.fd)
      if (spec.path !== undefined) removeLink(pty.name, spec.path)
    },
  })
  const look = (): void => {
    if (slot.closed || slot.connected) return
    if (pty.opens !== -1) skim(pty.opens, 65536)
    // Somebody may have written and left already: those bytes count.
    const here = !hungUp(pty.fd) || unread(pty.fd) > 0
    watch?.want(!here, false)
    clearInterval(timer)
    if (here) {
      stopSize = watchTerminalSize(pty.fd, (cols, rows) => end.resized(cols, rows))
      slot.adopt(pty.fd)
    } else if (!watch) timer = setInterval(look, LOOK_MS).unref()
  }
  slot.place = pty.name
  look()
  return slot.start()
}

function makeLink(name: string, path: string): void {
  for (let tries = 0; ; tries++) {
    try {
      symlinkSync(name, path)
      return
    } catch (cause) {
      const errno = (cause as NodeJS.ErrnoException).code ?? ''
      if (errno === 'EEXIST' && tries === 0 && isDeadLink(path)) {
        unlinkSync(path)
        continue
      }
      const exists = errno === 'EEXIST'
      throw new VmchannelError(
        exists ? 'ERR_VMCHANNEL_IN_USE' : 'ERR_VMCHANNEL_CHARDEV',
        `cannot make the link ${path} to the pty ${name}: ${exists ? 'it exists already' : errno}`,
        {
          errno,
          syscall: 'symlink',
          hint: exists
            ? 'remove it if its owner is gone, or choose another path'
            : 'choose a path in a directory that exists and can be written to',
          cause,
        },
      )
    }
  }
}

/** A link to a pty that is no more: left by a process that was killed. */
function isDeadLink(path: string): boolean {
  try {
    return readlinkSync(path).startsWith('/dev/pts/') && !existsSync(path)
  } catch {
    return false
  }
}

function removeLink(name: string, path: string): void {
  try {
    if (readlinkSync(path) === name) unlinkSync(path)
  } catch {
    // Gone already, or somebody else's now.
  }
}
