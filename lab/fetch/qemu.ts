/**
 * A QEMU that has vfio-user-pci: the system's where it is new enough, else 11.1 of trixie-backports, unpacked into the
 * cache. Either way the caller gets one executable path.
 */
import { existsSync } from 'node:fs'
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { VmchannelError } from '../../src/errors.ts'
import { tryCommand } from '../command.ts'
import { findProgram } from '../paths.ts'
import { writeLauncher } from './launcher.ts'
import { ensurePackages, type FetchOptions } from './packages.ts'

export interface Qemu {
  /** Start this; it is a program or a script that becomes one. */
  path: string
  version: string
  source: 'environment' | 'system' | 'cache'
}

const NAME = 'qemu-system-x86_64'
const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

/** `VMCHANNEL_QEMU` (a path) wins over everything and is not replaced when it does not fit. */
export async function ensureQemu(options: FetchOptions = {}): Promise<Qemu> {
  const named = process.env['VMCHANNEL_QEMU']
  if (named) {
    const version = await probe(named)
    if (version) return { path: named, version, source: 'environment' }
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', `VMCHANNEL_QEMU=${named} is no QEMU with the device vfio-user-pci`, {
      hint: 'QEMU 10.1 or newer is needed; unset VMCHANNEL_QEMU to let the lab find or fetch one',
    })
  }
  const installed = findProgram(NAME)
  const version = installed && (await probe(installed))
  if (installed && version) return { path: installed, version, source: 'system' }
  return fetchQemu(options)
}

/** The cached one, whatever the system has. */
export async function fetchQemu(options: FetchOptions = {}): Promise<Qemu> {
  const tree = await ensurePackages(
    {
      name: 'qemu',
      suite: 'trixie-backports',
      install: ['qemu-system-x86'],
      finish: (unpacked, final) =>
        writeLauncher(join(unpacked, 'bin', NAME), final, `usr/bin/${NAME}`, {
          env: { QEMU_MODULE_DIR: join(final, LIBRARIES, 'qemu') },
          args: ['-L', join(final, 'usr/share/qemu'), '-L', join(final, 'usr/share/seabios')],
          libraries: [`${LIBRARIES}/pulseaudio`],
        }),
    },
    options,
  )
  await ownModules(tree)
  const path = join(tree, 'bin', NAME)
  const version = await probe(path)
  if (version) return { path, version, source: 'cache' }
  throw new VmchannelError('ERR_VMCHANNEL_QEMU', `${path} does not start, or has no vfio-user-pci`, {
    hint: `remove ${tree} to have it fetched again`,
  })
}

/**
 * QEMU looks for a module in QEMU_MODULE_DIR, and where it is not there, in the system's folder: `-device ?` loads all
 * that it knows of, meets those of another version and aborts. With a folder of this name beside its program (here: its
 * loader) it takes all paths that were compiled in as relative to that.
 */
async function ownModules(tree: string): Promise<void> {
  const bundle = join(tree, LIBRARIES, 'qemu-bundle')
  if (existsSync(join(bundle, 'usr'))) return
  await mkdir(bundle, { recursive: true })
  await symlink('../../..', join(bundle, 'usr')).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error // somebody else was faster
  })
}

/** The version, if it runs and has the device. */
async function probe(path: string): Promise<string | undefined> {
  const device = await tryCommand(path, ['-device', 'vfio-user-pci,help']).catch(() => undefined)
  if (device?.status !== 0) return undefined
  const { stdout } = await tryCommand(path, ['--version'])
  return /version (\d+\.\d+\.\d+)/.exec(stdout.toString())?.[1]
}
