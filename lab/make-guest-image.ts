/**
 * `npm run guest-image`: a bootable guest with the guest half in it, as an initramfs or as a small disk. Needs no root;
 * docs/guest-image.md tells what to do with it.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { describeError, EXIT_CODES, VmchannelError } from '../src/errors.ts'
import { command } from './command.ts'
import { cpio, type CpioEntry, S_IFDIR, S_IFLNK } from './cpio.ts'
import { ensureKernel, KERNEL_SERIES, type KernelSeries } from './fetch/kernel.ts'
import { diskLoaderEntries, imageEntries } from './image-files.ts'
import { findProgram } from './paths.ts'

const USAGE = `usage: npm run guest-image -- [--out FOLDER] [--format initramfs|ext4] [--kernel ${KERNEL_SERIES.join('|')}]
                                [--node PATH] [--add FILE:PATH]…
  --out     where to (default: guest-image)
  --format  all of it in the initramfs, or a disk with an initramfs that finds it (default: initramfs)
  --kernel  Debian's kernel of that series (default: 7.x)
  --node    the program for the guest, dynamically linked against Debian's C library (default: this one)
  --add     one more file; /etc/rc.local is started at boot, and again when it ends
`

export type ImageFormat = 'initramfs' | 'ext4'

export interface ImageWish {
  out: string
  format: ImageFormat
  kernel: KernelSeries
  node?: string
  add?: Record<string, string>
}

export interface GuestImage {
  /** Arguments for QEMU, without memory and devices. */
  args: string[]
  files: string[]
}

/** Writes kernel and image into `out`. */
export async function makeGuestImage(wish: ImageWish): Promise<GuestImage> {
  const { format, node, add } = wish
  const out = resolve(wish.out)
  const kernel = await ensureKernel(wish.kernel)
  const entries = await imageEntries({
    kernel,
    ...(node === undefined ? {} : { node }),
    ...(add === undefined ? {} : { add }),
  })
  mkdirSync(out, { recursive: true })
  const [vmlinuz, initrd, disk] = [join(out, 'vmlinuz'), join(out, 'initrd.img'), join(out, 'root.ext4')]
  copyFileSync(kernel.vmlinuz, vmlinuz)
  writeFileSync(initrd, cpio(format === 'ext4' ? await diskLoaderEntries(kernel) : entries))
  const boot = ['-kernel', vmlinuz, '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1']
  if (format === 'initramfs') return { args: boot, files: [vmlinuz, initrd] }
  await writeDisk(disk, entries)
  const drive = ['-drive', `if=none,id=root,format=raw,file=${disk}`, '-device', 'virtio-blk-pci,drive=root']
  return { args: [...boot, ...drive], files: [vmlinuz, initrd, disk] }
}

/** mke2fs fills the file system from a folder: no root, no mount. The files belong to who made them. */
async function writeDisk(path: string, entries: readonly CpioEntry[]): Promise<void> {
  const mke2fs = findProgram('mke2fs') ?? ['/usr/sbin/mke2fs', '/sbin/mke2fs'].find((file) => existsSync(file))
  if (mke2fs === undefined)
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', 'an ext4 image takes mke2fs, which is not here', {
      hint: 'Install e2fsprogs, or make an initramfs: --format initramfs.',
    })
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-image-'))
  try {
    let bytes = 0
    for (const { name, mode, data = new Uint8Array(0) } of entries) {
      const target = join(folder, name)
      if ((mode & 0o170000) === S_IFDIR) mkdirSync(target, { recursive: true })
      else if ((mode & 0o170000) === S_IFLNK) symlinkSync(Buffer.from(data).toString(), target)
      else writeFileSync(target, data, { mode: mode & 0o777 })
      bytes += data.length
    }
    rmSync(path, { force: true })
    // Room for the file system's own, and some for the guest.
    const kib = Math.ceil(bytes / 1024) + 32 * 1024
    await command(mke2fs, ['-q', '-t', 'ext4', '-m', '0', '-E', 'root_owner=0:0', '-d', folder, path, `${kib}k`])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function parse(words: string[]): ImageWish | undefined {
  const text = { type: 'string' } as const
  try {
    const { values } = parseArgs({
      args: words,
      options: {
        ...{ out: text, format: text, kernel: text, node: text },
        ...{ add: { type: 'string', multiple: true }, help: { type: 'boolean' } },
      },
    })
    const { out = 'guest-image', format = 'initramfs', kernel = '7.x', node, add = [] } = values
    if (values.help) throw new RangeError('')
    if (format !== 'initramfs' && format !== 'ext4') throw new RangeError(`--format: "${format}" is neither`)
    const series = KERNEL_SERIES.find((name) => name === kernel)
    if (!series) throw new RangeError(`--kernel: "${kernel}" is none of ${KERNEL_SERIES.join(', ')}`)
    const files = Object.fromEntries(add.map(fileAndPath))
    return { out, format, kernel: series, add: files, ...(node === undefined ? {} : { node }) }
  } catch (error) {
    const { message } = error as Error
    process.stderr.write(`${message ? `guest-image: ${message}\n` : ''}${USAGE}`)
    process.exitCode = message ? EXIT_CODES.ERR_VMCHANNEL_USAGE : 0
    return undefined
  }
}

function fileAndPath(word: string): [path: string, file: string] {
  const at = word.lastIndexOf(':')
  const [file, path] = [word.slice(0, at), word.slice(at + 1)]
  if (at < 1 || !path.startsWith('/')) throw new RangeError(`--add: "${word}" is not FILE:/PATH`)
  if (!existsSync(file)) throw new RangeError(`--add: there is no ${file}`)
  return [path, file]
}

async function main(wish: ImageWish): Promise<void> {
  const { args, files } = await makeGuestImage(wish)
  for (const file of files) process.stdout.write(`${(statSync(file).size / 2 ** 20).toFixed(1)} MiB  ${file}\n`)
  const words = args.map((word) => (/[ ;]/.test(word) ? `'${word}'` : word)).join(' ')
  process.stdout.write(
    `\nBoot it with our device:\n  vmchannel qemu -virtioserial unix:/tmp/vm.sock,name=org.example.0 -m 512 ` +
      `-nographic -machine q35 ${words}\n`,
  )
}

if (process.argv[1]?.endsWith('make-guest-image.js')) {
  const wish = parse(process.argv.slice(2))
  try {
    if (wish) await main(wish)
  } catch (error) {
    process.stderr.write(`guest-image: ${describeError(error)}\n`)
    process.exitCode = error instanceof VmchannelError ? EXIT_CODES[error.code] : 1
  }
}
