/**
 * The guest: busybox, the modules asked for, our static programs and an init script, as one initramfs file. Built once
 * for each content. machine.ts boots it.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { basename, join, posix } from 'node:path'
import { cpio, type CpioEntry, S_IFDIR, S_IFLNK, S_IFREG } from './cpio.ts'
import { ensureBusybox } from './fetch/busybox.ts'
import { guestProgram } from './fetch/compiler.ts'
import { type Kernel, kernelModules, VIRTIO_MODULES } from './fetch/kernel.ts'
import { cacheRoot, guestSource } from './paths.ts'

export interface GuestOptions {
  /** Modules to insert at boot, with all they depend on; default VIRTIO_MODULES. */
  modules?: readonly string[]
  /** Modules that lie in /modules with what they depend on, but are not inserted; `insert-modules` does it. */
  spareModules?: readonly string[]
  /** Names for `guestProgram`, put into /bin; `vmtest` is always there. */
  programs?: readonly string[]
  /** Guest path → host file, or text. Executable where the host file is. */
  files?: Readonly<Record<string, string | { text: string; mode?: number }>>
  /** Shell text that runs in init, after the modules and before the agent. */
  init?: string
}

const FOLDERS = ['bin', 'dev', 'etc', 'modules', 'proc', 'root', 'run', 'sys', 'tmp', 'usr']

/** The path of the image. */
export async function guestImage(kernel: Kernel, options: GuestOptions = {}): Promise<string> {
  const entries = new Map<string, CpioEntry>()
  const add = (name: string, mode: number, data: Uint8Array | string = '') => {
    for (let parent = posix.dirname(name); parent !== '.'; parent = posix.dirname(parent)) {
      if (!entries.has(parent)) add(parent, S_IFDIR | 0o755)
    }
    entries.set(name, { name, mode, data: typeof data === 'string' ? Buffer.from(data) : data })
  }
  for (const folder of FOLDERS) add(folder, S_IFDIR | 0o755)
  add('sbin', S_IFLNK | 0o777, 'bin')
  add('bin/busybox', S_IFREG | 0o755, await readFile(await ensureBusybox()))
  for (const name of ['agent', 'vmtest', ...(options.programs ?? [])]) {
    add(`bin/${name}`, S_IFREG | 0o755, await readFile(await guestProgram(name)))
  }
  const first = await kernelModules(kernel, options.modules ?? VIRTIO_MODULES)
  const all = await kernelModules(kernel, [...(options.modules ?? VIRTIO_MODULES), ...(options.spareModules ?? [])])
  for (const path of all) add(`modules/${basename(path)}`, S_IFREG | 0o644, await readFile(path))
  add('modules/boot', S_IFREG | 0o644, first.map((path) => `${basename(path)}\n`).join(''))
  add('modules/all', S_IFREG | 0o644, all.map((path) => `${basename(path)}\n`).join(''))
  for (const [path, from] of Object.entries(options.files ?? {})) {
    const name = path.replace(/^\/+/, '')
    if (typeof from === 'string') add(name, S_IFREG | 0o755, await readFile(from))
    else add(name, S_IFREG | (from.mode ?? 0o644), from.text)
  }
  add('bin/insert-modules', S_IFREG | 0o755, await readFile(guestSource('insert-modules.sh')))
  add('init', S_IFREG | 0o755, await readFile(guestSource('init.sh')))
  add('etc/init-extra', S_IFREG | 0o755, options.init ?? '')

  const bytes = cpio([...entries.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1)))
  const folder = join(cacheRoot(), 'images')
  const image = join(folder, `${createHash('sha256').update(bytes).digest('hex').slice(0, 20)}.cpio`)
  if (existsSync(image)) return image
  await mkdir(folder, { recursive: true })
  await writeFile(`${image}.${process.pid}`, bytes)
  await rename(`${image}.${process.pid}`, image)
  return image
}
