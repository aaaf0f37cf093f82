/** The guest's user space: Debian's statically linked busybox. It runs on the host as well (unxz). */
import { join } from 'node:path'
import { ensurePackages, type FetchOptions } from './packages.ts'

export async function ensureBusybox(options: FetchOptions = {}): Promise<string> {
  const tree = await ensurePackages(
    { name: 'busybox', suite: 'trixie', install: ['busybox-static'], keep: /^busybox-static=/ },
    options,
  )
  return join(tree, 'usr/bin/busybox')
}
