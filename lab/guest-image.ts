/**
 * A guest with Node in it, for the guest half: Node, its shared libraries and koffi lie in the initramfs; what is
 * being worked on comes on a small disk, so that the big image is made once.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { copyFile, mkdir, readdir, rename } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { BUNDLE_MAIN, writeBundle } from './bundle.ts'
import { command, tryCommand } from './command.ts'
import { VIRTIO_MODULES } from './fetch/kernel.ts'
import type { GuestOptions } from './initramfs.ts'
import { cacheRoot, findProgram, repoRoot } from './paths.ts'

/** Where the package lies in the guest. */
export const GUEST_HOME = '/opt/vmchannel'
/** Starts the guest half there: the bundle. */
export const GUEST_COMMAND: string = `node ${GUEST_HOME}/${BUNDLE_MAIN}`
/** What it needs of the kernel, to be inserted by hand or by modprobe. */
export const GUEST_MODULES: readonly string[] = ['uio_pci_generic', 'cuse', 'vfio_pci', 'vfio_iommu_type1']

export interface NodeGuestOptions {
  /** More modules, with GUEST_MODULES to be inserted at boot. */
  modules?: readonly string[]
  /** Node's binary; default: the one that runs this. */
  node?: string
}

/** What `guestImage` needs to make an image with Node. */
export async function nodeGuest(options: NodeGuestOptions = {}): Promise<GuestOptions> {
  const files = { ...(await nodeFiles(options.node)), ...(await koffi()) }
  return {
    modules: [...VIRTIO_MODULES, 'virtio_blk', ...GUEST_MODULES, ...(options.modules ?? [])],
    files,
    init: `mkdir -p ${GUEST_HOME} && tar xf /dev/vda -C ${GUEST_HOME}\n`,
  }
}

/** Node and its libraries: path in the guest → file. */
export async function nodeFiles(path: string = process.execPath): Promise<Record<string, string>> {
  const node = await strippedNode(path)
  return { '/bin/node': node, ...(await libraries(node)) }
}

export interface CodeDisk {
  /** For QEMU's command line. */
  readonly args: readonly string[]
  remove(): void
}

/** The bundle, and what `tsc -b` has made, as a disk: the guest's init unpacks it. */
export async function codeDisk(): Promise<CodeDisk> {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-code-'))
  const path = join(folder, 'code.tar')
  const bundle = join(folder, 'bundle')
  await writeBundle(bundle)
  const words = [
    '-C',
    bundle,
    '.',
    '--exclude=*.d.ts',
    '-C',
    repoRoot(),
    'package.json',
    'dist/src',
    'examples',
    'test/guest/programs',
  ]
  await command('tar', ['cf', path, ...words])
  return {
    args: [
      ...['-drive', `if=none,id=code,format=raw,readonly=on,file=${path}`],
      ...['-device', 'virtio-blk-pci,drive=code'],
    ],
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** The binary without its symbols, which are an eighth of it. */
async function strippedNode(path: string): Promise<string> {
  const { size, mtimeMs } = statSync(path)
  const id = createHash('sha256').update(`${path} ${size} ${mtimeMs}`).digest('hex').slice(0, 12)
  const folder = join(cacheRoot(), 'guest-node')
  const result = join(folder, `node-${id}`)
  if (existsSync(result)) return result
  await mkdir(folder, { recursive: true })
  const part = `${result}.${process.pid}`
  const strip = findProgram('strip')
  if (!strip || (await tryCommand(strip, ['-s', '-o', part, path])).status !== 0) await copyFile(path, part)
  await rename(part, result)
  return result
}

/** Shared libraries of a binary, at the places where it looks for them. */
async function libraries(path: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const line of (await command('ldd', [path])).toString().split('\n')) {
    const [, file] = /(?:=> )?(\/\S+) \(0x/.exec(line) ?? []
    if (file === undefined) continue
    // The loader is named by its place; the others are looked for by name in /lib.
    found[file.includes('/ld-') ? file : `/lib/${basename(file)}`] = file
  }
  return found
}

/** koffi's JavaScript, and its binary for this machine. */
async function koffi(): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  const modules = join(repoRoot(), 'node_modules')
  const native = (await readdir(join(modules, '@koromix'))).filter((name) => name.startsWith('koffi-linux-'))
  for (const name of ['koffi', ...native.map((one) => `@koromix/${one}`)]) {
    const root = join(modules, name)
    for (const file of await readdir(root, { recursive: true })) {
      if (!/(\.cjs|\.js|\.json|\.node)$/.test(file) || /(^|\/)(doc|vendor|lib|musl_\w+)\//.test(file)) continue
      found[`${GUEST_HOME}/node_modules/${name}/${file}`] = join(root, file)
    }
  }
  return found
}
