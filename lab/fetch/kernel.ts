/**
 * Stock Debian cloud kernels for the guest and their modules. The packages bring no modules.dep (depmod makes it at
 * installation), so dependencies are read from the modules themselves.
 */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { VmchannelError } from '../../src/errors.ts'
import { command } from '../command.ts'
import type { Suite } from './apt.ts'
import { ensureBusybox } from './busybox.ts'
import { insertionOrder, moduleDepends, moduleName } from './modules.ts'
import { ensurePackages, type FetchOptions } from './packages.ts'

export type KernelSeries = '6.1' | '6.12' | '7.x'

export const KERNEL_SERIES: readonly KernelSeries[] = ['6.1', '6.12', '7.x']

export interface Kernel {
  series: KernelSeries
  /** What `uname -r` says. */
  release: string
  vmlinuz: string
  /** Folder with `kernel/` and modules.builtin. */
  modulesRoot: string
}

/** What a guest needs to see our device; those built into the kernel are left out where it is assembled. */
export const VIRTIO_MODULES: readonly string[] = ['virtio_ring', 'virtio', 'virtio_pci', 'virtio_console']

const SUITE_OF: Readonly<Record<KernelSeries, Suite>> = {
  '6.1': 'bookworm',
  '6.12': 'trixie',
  '7.x': 'trixie-backports',
}

export async function ensureKernel(series: KernelSeries, options: FetchOptions = {}): Promise<Kernel> {
  const tree = await ensurePackages(
    {
      name: `linux-${series}`,
      suite: SUITE_OF[series],
      install: ['linux-image-cloud-amd64'],
      keep: /^linux-(image|binary|modules|base)-\d/, // without the tools that build an initramfs
    },
    options,
  )
  for (const folder of ['usr/lib/modules', 'lib/modules']) {
    const parent = join(tree, folder)
    const release = existsSync(parent) ? (await readdir(parent))[0] : undefined
    if (!release) continue
    const modulesRoot = join(parent, release)
    const vmlinuz = [join(tree, 'boot', `vmlinuz-${release}`), join(modulesRoot, 'vmlinuz')].find((path) =>
      existsSync(path),
    )
    if (vmlinuz) return { series, release, vmlinuz, modulesRoot }
  }
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `no kernel in ${tree}`, {
    hint: 'remove the folder to fetch it again',
  })
}

/** Plain .ko files for `names` and all they depend on, in insertion order; what is built in is left out. */
export async function kernelModules(kernel: Kernel, names: readonly string[] = VIRTIO_MODULES): Promise<string[]> {
  const builtin = new Set(
    (await readFile(join(kernel.modulesRoot, 'modules.builtin'), 'utf8')).split('\n').map(moduleName),
  )
  const files = new Map<string, string>()
  for (const path of await readdir(join(kernel.modulesRoot, 'kernel'), { recursive: true })) {
    if (/\.ko(\.\w+)?$/.test(path)) files.set(moduleName(path), join(kernel.modulesRoot, 'kernel', path))
  }
  const plain = new Map<string, string>()
  const depends = async (name: string): Promise<string[]> => {
    const file = files.get(name)
    if (!file) {
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `kernel ${kernel.release} has no module ${name}`)
    }
    const path = await plainModule(kernel, name, file)
    plain.set(name, path)
    return moduleDepends(await readFile(path))
  }
  const order = await insertionOrder(names, builtin, depends)
  return order.map((name) => plain.get(name) ?? '')
}

/** The module uncompressed, kept beside the packed ones. */
async function plainModule(kernel: Kernel, name: string, file: string): Promise<string> {
  if (file.endsWith('.ko')) return file
  const plain = join(kernel.modulesRoot, 'plain', `${name}.ko`)
  if (existsSync(plain)) return plain
  const packed = await readFile(file)
  let bytes: Uint8Array
  if (file.endsWith('.xz')) bytes = await command(await ensureBusybox(), ['unxz', '-c'], { input: packed })
  else if (file.endsWith('.gz')) bytes = gunzipSync(packed)
  else if (file.endsWith('.zst')) bytes = await command('zstd', ['-dc'], { input: packed })
  else throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `${file}: unknown compression`)
  await mkdir(join(kernel.modulesRoot, 'plain'), { recursive: true })
  await writeFile(`${plain}.${process.pid}`, bytes)
  await rename(`${plain}.${process.pid}`, plain)
  return plain
}
