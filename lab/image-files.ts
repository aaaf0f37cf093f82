/**
 * What is in a guest image of our own (npm run guest-image): busybox, Node, the bundle, the modules that it needs, and
 * scripts that start it. A list of files, for make-guest-image.ts to pack one way or the other.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, posix } from 'node:path'
import { BUNDLE_MAIN, BUNDLE_NATIVE, writeBundle } from './bundle.ts'
import { type CpioEntry, S_IFDIR, S_IFLNK, S_IFREG } from './cpio.ts'
import { ensureBusybox } from './fetch/busybox.ts'
import { type Kernel, kernelModules } from './fetch/kernel.ts'
import { GUEST_HOME, GUEST_MODULES, nodeFiles } from './guest-image.ts'
import { guestSource } from './paths.ts'

export interface ImageOptions {
  kernel: Kernel
  /** Node's binary; default: the one that runs this. */
  node?: string
  /** More files: path in the guest → file here. */
  add?: Readonly<Record<string, string>>
}

/** Folders that are mounted upon, or that programs expect. */
const FOLDERS = ['bin', 'dev', 'etc', 'lib', 'mnt', 'proc', 'root', 'run', 'sys', 'tmp', 'usr']
/** Of the bus alone: the device is ours, so the kernel's driver for it is not there. */
const BUS_MODULES = ['virtio_ring', 'virtio', 'virtio_pci', 'virtio_blk']

/** All of the system, parents before what they hold. */
export async function imageEntries({ kernel, node, add = {} }: ImageOptions): Promise<CpioEntry[]> {
  const tree = new Tree()
  for (const folder of FOLDERS) tree.folder(folder)
  await tree.file('bin/busybox', await ensureBusybox(), 0o755)
  for (const [path, from] of Object.entries(await nodeFiles(node))) await tree.file(path, from, 0o755)
  const bundle = mkdtempSync(join(tmpdir(), 'vmchannel-bundle-'))
  try {
    await writeBundle(bundle)
    for (const name of [BUNDLE_MAIN, BUNDLE_NATIVE]) await tree.file(`${GUEST_HOME}/${name}`, join(bundle, name))
  } finally {
    rmSync(bundle, { recursive: true })
  }
  await addModules(tree, kernel, [...BUS_MODULES, ...GUEST_MODULES])
  await tree.file('etc/rc', guestSource('image/rc.sh'), 0o755)
  await tree.file('etc/inittab', guestSource('image/inittab'))
  await tree.file('bin/vmchannel-guest', guestSource('image/vmchannel-guest.sh'), 0o755)
  tree.link('init', 'bin/busybox')
  for (const [path, from] of Object.entries(add)) await tree.file(path, from, statSync(from).mode & 0o777)
  return tree.entries
}

/** The few files that find the disk with the system on it, and go there. */
export async function diskLoaderEntries(kernel: Kernel): Promise<CpioEntry[]> {
  const tree = new Tree()
  for (const folder of ['bin', 'dev', 'disk', 'proc', 'sys']) tree.folder(folder)
  await tree.file('bin/busybox', await ensureBusybox(), 0o755)
  await addModules(tree, kernel, BUS_MODULES)
  await tree.file('init', guestSource('image/disk-init.sh'), 0o755)
  return tree.entries
}

async function addModules(tree: Tree, kernel: Kernel, names: readonly string[]): Promise<void> {
  const paths = await kernelModules(kernel, names)
  for (const path of paths) await tree.file(`modules/${basename(path)}`, path)
  tree.text('modules/boot', paths.map((path) => `${basename(path)}\n`).join(''))
}

class Tree {
  readonly #entries = new Map<string, CpioEntry>()

  get entries(): CpioEntry[] {
    return [...this.#entries.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
  }

  folder(path: string): void {
    this.#add(path, S_IFDIR | 0o755)
  }

  link(path: string, target: string): void {
    this.#add(path, S_IFLNK | 0o777, Buffer.from(target))
  }

  text(path: string, text: string): void {
    this.#add(path, S_IFREG | 0o644, Buffer.from(text))
  }

  async file(path: string, from: string, mode = 0o644): Promise<void> {
    this.#add(path, S_IFREG | mode, await readFile(from))
  }

  #add(path: string, mode: number, data: Uint8Array = new Uint8Array(0)): void {
    const name = path.replace(/^\/+/, '')
    const parent = posix.dirname(name)
    if (parent !== '.' && !this.#entries.has(parent)) this.folder(parent)
    this.#entries.set(name, { name, mode, data })
  }
}
