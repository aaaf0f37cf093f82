/**
 * Puts the files into this system, or into the tree of a guest, and takes them away again. Called by `vmchannel udev
 * install|uninstall` and by whoever builds a guest's image.
 */

import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { VmchannelError } from '../errors.ts'
import { HELPER_PATH } from './helper.ts'
import {
  helperFile,
  MDEV_CONF_PATH,
  RULES_PATH,
  udevFiles,
  withMdevLine,
  withoutMdevLine,
  type Access,
} from './rules.ts'

export interface Change {
  path: string
  action: 'written' | 'unchanged' | 'removed' | 'edited'
}

/** Writes the files below `root` ("/" for this system); those that are as they should be stay untouched. */
export function installGuestFiles(root: string, mdev: boolean, access: Access = {}): Change[] {
  mustBeDirectory(root)
  const changes: Change[] = []
  for (const file of mdev ? [helperFile()] : udevFiles(access))
    changes.push(write(join(root, file.path), file.text, file.mode, 'written'))
  if (mdev) {
    const conf = join(root, MDEV_CONF_PATH)
    const old = readIfThere(conf)
    changes.push(write(conf, withMdevLine(old ?? '', access), 0o644, old === undefined ? 'written' : 'edited'))
  }
  return changes
}

/** Removes what install wrote, for udev and for mdev. */
export function uninstallGuestFiles(root: string): Change[] {
  mustBeDirectory(root)
  const changes: Change[] = []
  const conf = join(root, MDEV_CONF_PATH)
  const old = readIfThere(conf)
  if (old !== undefined && withoutMdevLine(old) !== old)
    changes.push(write(conf, withoutMdevLine(old), 0o644, 'edited'))
  for (const path of [RULES_PATH, HELPER_PATH].map((name) => join(root, name))) {
    if (!existsSync(path)) continue
    explain(path, 'removed', () => rmSync(path))
    changes.push({ path, action: 'removed' })
  }
  return changes
}

function mustBeDirectory(root: string): void {
  if (statSync(root, { throwIfNoEntry: false })?.isDirectory()) return
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `--root ${root}: no such directory`, {
    hint: 'name the top directory of the tree, e.g. where the image of the guest is mounted',
  })
}

function readIfThere(path: string): string | undefined {
  return existsSync(path) ? explain(path, 'read', () => readFileSync(path, 'utf8')) : undefined
}

/** Through a new file and a rename: a udev that looks meanwhile sees the old or the new one, never half of it. */
function write(path: string, text: string, mode: number, action: Change['action']): Change {
  if (readIfThere(path) === text) return { path, action: 'unchanged' }
  return explain(path, 'written', () => {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(`${path}.new`, text)
    chmodSync(`${path}.new`, mode)
    renameSync(`${path}.new`, path)
    return { path, action }
  })
}

function explain<T>(path: string, what: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'error'
    const denied = code === 'EACCES' || code === 'EPERM'
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${path} cannot be ${what}: ${code}`, {
      hint: denied
        ? 'run it as root, or with --root on a tree of yours'
        : 'see whether the file system is full or read-only',
      cause,
      errno: code,
    })
  }
}
