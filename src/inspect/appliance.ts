/**
 * libguestfs's appliance: a small Linux with its daemon. Either a fixed one (a folder in LIBGUESTFS_PATH), or made by
 * supermin of the packages of this system and kept where libguestfs keeps it, so that both share one. Called by
 * inspect-disk.ts.
 */

import { spawn } from 'node:child_process'
import { closeSync, existsSync, lstatSync, mkdirSync, openSync, readSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { VmchannelError } from '../errors.ts'
import { aborted } from '../client/abort.ts'

export interface Appliance {
  kernel: string
  initrd: string
  root: string
  /** Of the root file system, for the kernel's command line. */
  uuid: string
}

type Env = Readonly<Record<string, string | undefined>>

const FOLDERS = [
  '/usr/lib/x86_64-linux-gnu/guestfs',
  '/usr/lib64/guestfs',
  '/usr/lib/guestfs',
  '/usr/local/lib/guestfs',
]
const FIXED = ['README.fixed', 'kernel', 'initrd', 'root']
const STDERR_MAX = 8192

/** The appliance, made now where that is needed: half a minute, once. */
export async function findAppliance(env: Env, step: (text: string) => void, signal?: AbortSignal): Promise<Appliance> {
  const folders = env['LIBGUESTFS_PATH']?.split(delimiter).filter((folder) => folder !== '') ?? FOLDERS
  for (const folder of folders) {
    if (FIXED.every((name) => existsSync(join(folder, name)))) return describe(folder)
  }
  const recipe = folders.map((folder) => join(folder, 'supermin.d')).find((folder) => existsSync(folder))
  if (recipe === undefined) throw notInstalled(env['LIBGUESTFS_PATH'] === undefined ? undefined : folders)
  return describe(await build(recipe, env, step, signal))
}

function notInstalled(named: readonly string[] | undefined): VmchannelError {
  const where = named ? ` (LIBGUESTFS_PATH names ${named.join(', ')})` : ''
  return new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `libguestfs's appliance is not installed${where}`, {
    hint:
      'Debian and Ubuntu: apt install libguestfs0 supermin; Fedora: dnf install libguestfs-appliance; ' +
      'or set LIBGUESTFS_PATH to a folder made by libguestfs-make-fixed-appliance',
  })
}

async function build(recipe: string, env: Env, step: (text: string) => void, signal?: AbortSignal): Promise<string> {
  const base = env['LIBGUESTFS_CACHEDIR'] || env['TMPDIR'] || '/var/tmp'
  const cache = join(base, `.guestfs-${process.getuid?.() ?? 0}`)
  checkPrivate(cache)
  const folder = join(cache, 'appliance.d')
  if (!existsSync(join(folder, 'root'))) step('making the appliance with supermin (once)')
  const words = ['--build', '--if-newer', '--lock', join(cache, 'lock'), '--copy-kernel', '-f', 'ext2']
  await run('supermin', [...words, '--host-cpu', 'x86_64', recipe, '-o', folder], signal)
  return folder
}

/** Whoever can write there decides what we boot. */
function checkPrivate(folder: string): void {
  if (!existsSync(folder)) mkdirSync(folder, { mode: 0o755 })
  const stat = lstatSync(folder)
  if (stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & 0o022) === 0) return
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${folder} is not a directory that only this user can write`, {
    hint: 'remove it, or set LIBGUESTFS_CACHEDIR to a directory of your own',
  })
}

function run(program: string, words: readonly string[], signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted('making the appliance', signal))
    const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'], ...(signal ? { signal } : {}) })
    let said = ''
    child.stderr.setEncoding('utf8')
    child.stderr.on('data', (text: unknown) => (said = (said + String(text)).slice(-STDERR_MAX)))
    child.on('error', (cause: NodeJS.ErrnoException) => {
      if (signal?.aborted) return reject(aborted('making the appliance', signal))
      reject(
        new VmchannelError(
          'ERR_VMCHANNEL_NOT_FOUND',
          `supermin, which makes libguestfs's appliance, does not start: ${cause.code}`,
          {
            hint: 'install the package supermin, or set LIBGUESTFS_PATH to a folder made by libguestfs-make-fixed-appliance',
            cause,
          },
        ),
      )
    })
    child.on('close', (status) => {
      if (status === 0) return resolve()
      const last = said.trim().split('\n').slice(-3).join('; ')
      reject(
        new VmchannelError('ERR_VMCHANNEL_PLATFORM', `supermin cannot make libguestfs's appliance: ${last}`, {
          hint: 'a kernel that this user can read is needed (/boot/vmlinuz-*, or SUPERMIN_KERNEL and SUPERMIN_MODULES)',
        }),
      )
    })
  })
}

function describe(folder: string): Appliance {
  const root = join(folder, 'root')
  return { kernel: join(folder, 'kernel'), initrd: join(folder, 'initrd'), root, uuid: readUuid(root) }
}

/** From the superblock of ext2, 3 or 4. */
function readUuid(path: string): string {
  const block = Buffer.alloc(1024)
  const fd = openSync(path, 'r')
  try {
    readSync(fd, block, 0, block.length, 1024)
  } finally {
    closeSync(fd)
  }
  if (block.readUInt16LE(0x38) !== 0xef53) {
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${path} of the appliance is no ext file system`, {
      hint: 'make it again: remove the folder, or run libguestfs-make-fixed-appliance',
    })
  }
  const hex = block.toString('hex', 0x68, 0x78)
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
