/**
 * A QEMU that has vfio-user-pci: the one that `vmchannel qemu` would run where it fits, else 11.1 of trixie-backports,
 * unpacked into the cache. Either way the caller gets one executable path. Finding and asking are the product's own
 * (src/qemu/find.ts, probe.ts).
 */
import { existsSync } from 'node:fs'
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { VmchannelError } from '../../src/errors.ts'
import { findQemu } from '../../src/qemu/find.ts'
import { askQemu } from '../../src/qemu/probe.ts'
import type { Launcher } from './launcher.ts'
import { ensurePackages, type FetchOptions } from './packages.ts'

export interface Qemu {
  /** Start this; it is a program or a script that becomes one. */
  path: string
  version: string
  source: 'environment' | 'system' | 'cache'
}

const NAME = 'qemu-system-x86_64'
const LIBRARIES = 'usr/lib/x86_64-linux-gnu'
/** For packages of Debian, of any version. */
export const QEMU_LAUNCHER: Launcher = {
  script: `bin/${NAME}`,
  program: `usr/bin/${NAME}`,
  env: { QEMU_MODULE_DIR: { inTree: `${LIBRARIES}/qemu` } },
  args: ['-L', { inTree: 'usr/share/qemu' }, '-L', { inTree: 'usr/share/seabios' }],
  libraries: [`${LIBRARIES}/pulseaudio`],
}

/** `VMCHANNEL_QEMU` wins over everything and is not replaced when it does not fit. */
export async function ensureQemu(options: FetchOptions = {}): Promise<Qemu> {
  if (process.env['VMCHANNEL_QEMU']) {
    const named = choice()
    if ('version' in named) return { ...named, source: 'environment' }
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', `the QEMU of VMCHANNEL_QEMU does not do: ${named.why}`, {
      hint: 'QEMU 10.1 or newer is needed; unset VMCHANNEL_QEMU to let the lab find or fetch one',
    })
  }
  const installed = choice()
  return 'version' in installed ? { ...installed, source: 'system' } : fetchQemu(options)
}

/** What the product would run, if our device can be in it. */
function choice(): { path: string; version: string } | { why: string } {
  try {
    const path = findQemu(process.env)
    const { version, obstacle } = askQemu(path, undefined)
    return obstacle ? { why: obstacle.message } : { path, version }
  } catch (error) {
    if (error instanceof VmchannelError) return { why: error.message }
    throw error
  }
}

/** The cached one, whatever the system has. */
export async function fetchQemu(options: FetchOptions = {}): Promise<Qemu> {
  const tree = await ensurePackages(
    { name: 'qemu', suite: 'trixie-backports', install: ['qemu-system-x86'], launchers: [QEMU_LAUNCHER] },
    options,
  )
  await ownModules(tree)
  const path = join(tree, QEMU_LAUNCHER.script)
  const { version, obstacle } = askCached(path, tree)
  if (obstacle) throw obstacle
  return { path, version, source: 'cache' }
}

/** What one of the cache can do; a tree that is broken is named, with the way out. */
export function askCached(path: string, tree: string): ReturnType<typeof askQemu> {
  try {
    return askQemu(path, undefined)
  } catch (cause) {
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', `${path} does not start: ${(cause as Error).message}`, {
      hint: `remove ${tree} to have it fetched again`,
      cause,
    })
  }
}

/**
 * QEMU looks for a module in QEMU_MODULE_DIR, and where it is not there, in the system's folder: `-device ?` loads all
 * that it knows of, meets those of another version and aborts. With a folder of this name beside its program (here: its
 * loader) it takes all paths that were compiled in as relative to that.
 */
export async function ownModules(tree: string): Promise<void> {
  const bundle = join(tree, LIBRARIES, 'qemu-bundle')
  if (existsSync(join(bundle, 'usr'))) return
  await mkdir(bundle, { recursive: true })
  await symlink('../../..', join(bundle, 'usr')).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error // somebody else was faster
  })
}
