/**
 * Names of ports in /dev: vmchN and, where the host named the port, virtio-ports/NAME as a link to it. The same rules
 * as the udev helper's: a port that is named vmchN gets that name, the others the lowest number that is free.
 */

import { existsSync, lstatSync, mkdirSync, readlinkSync, rmdirSync, symlinkSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'

const DEV = '/dev'
const LINKS = join(DEV, 'virtio-ports')
const OURS = /^vmch(0|[1-9]\d{0,3})$/

/** A name below /dev for a port; `taken` are those of the ports that have one. */
export function chooseName(hostName: string | undefined, taken: ReadonlySet<string>): string {
  if (hostName !== undefined && OURS.test(hostName) && !taken.has(hostName) && !existsSync(join(DEV, hostName)))
    return hostName
  for (let n = 0; ; n++) {
    const name = `vmch${n}`
    if (!taken.has(name) && !existsSync(join(DEV, name))) return name
  }
}

/** Makes the link; says what is in the way when it cannot be made. A dead link is one of a driver that was killed. */
export function linkPort(hostName: string, target: string): string | undefined {
  const path = join(LINKS, hostName)
  try {
    mkdirSync(LINKS, { recursive: true })
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() && !existsSync(path)) unlinkSync(path)
    symlinkSync(`../${target}`, path)
    return undefined
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'EEXIST' ? `${path} exists already` : `${path} cannot be made: ${code}`
  }
}

/** Removes the link if it is still ours. */
export function unlinkPort(hostName: string, target: string): void {
  const path = join(LINKS, hostName)
  try {
    if (readlinkSync(path) === `../${target}`) unlinkSync(path)
    rmdirSync(LINKS)
  } catch {
    // Somebody else's, gone already, or not the last one.
  }
}
