/**
 * Debian's libguestfs 1.48 with its appliance, unpacked into the cache: the programs run from there, and the appliance
 * is a fixed one (LIBGUESTFS_PATH), made here of the same packages, the daemon and the init that libguestfs ships, and
 * the lab's kernel. supermin, which makes it on a system that has libguestfs installed, wants the package database of
 * the system it runs on; this needs no root and changes nothing.
 */
import { existsSync } from 'node:fs'
import { chmod, cp, lstat, mkdir, readdir, readFile, rename, rm, rmdir, symlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { command } from '../command.ts'
import { cpio, type CpioEntry, S_IFDIR, S_IFREG } from '../cpio.ts'
import { guestSource } from '../paths.ts'
import { ensureBusybox } from './busybox.ts'
import { ensureKernel, type Kernel, kernelModules } from './kernel.ts'
import { ensurePackages, type FetchOptions } from './packages.ts'

export interface Guestfs {
  /** Folder with guestfish, virt-inspector, libguestfs-test-tool, qemu-img and mke2fs. */
  bin: string
  /** For LIBGUESTFS_PATH: kernel, initrd and root. */
  appliance: string
  /** The unpacked packages, and dpkg-status, which describes them: what a small Debian disk can be made of. */
  tree: string
}

/** What libguestfs puts into its appliance on Debian 12 (its list is supermin.d/packages), as far as tests need it. */
const APPLIANCE = [
  ...['acl', 'attr', 'bash', 'bsdextrautils', 'btrfs-progs', 'bzip2', 'coreutils', 'cpio', 'cryptsetup-bin', 'dash'],
  ...[
    'diffutils',
    'dosfstools',
    'e2fsprogs',
    'fdisk',
    'file',
    'findutils',
    'gawk',
    'gdisk',
    'grep',
    'gzip',
    'iproute2',
  ],
  ...[
    'kmod',
    'kpartx',
    'ldmtool',
    'libacl1',
    'libaugeas0',
    'libc-bin',
    'libcap2',
    'libhivex0',
    'libjansson4',
    'librpm9',
  ],
  ...['libselinux1', 'libsystemd0', 'libtirpc3', 'libtsk19', 'libxml2', 'libyara9', 'lsscsi', 'lvm2', 'mdadm', 'mount'],
  ...['ntfs-3g', 'parted', 'procps', 'psmisc', 'qemu-utils', 'sed', 'squashfs-tools', 'systemd-sysv', 'tar', 'udev'],
  ...['util-linux', 'uuid-runtime', 'xz-utils', 'zstd', 'base-files'],
]
/** What these would bring along and nothing here uses: QEMU, Perl and what they pull in. */
const UNUSED =
  /^(?!perl-base)(qemu-system.*|seabios|ipxe-qemu|perl|perl-.*|lib.*-perl|libperl.*|libspice.*|libgst.*|gstreamer.*|iso-codes|libasound.*|lib[xX](au|dmcp|cb|11).*|icoutils|netpbm|libnetpbm.*|openssh-client|grub.*|wget|curl|debootstrap|supermin|gpgv|apt|libapt.*|binutils.*|isc-dhcp.*|libnss3|libnspr.*|libcacard.*|libgbm.*|libdrm.*|libwayland.*|libsndio.*|mtools|extlinux|syslinux.*|sleuthkit|usrmerge|guestmount|adduser|libdb5.3-util|iproute2-doc)=/

const PROGRAMS: Readonly<Record<string, string>> = {
  guestfish: 'usr/bin/guestfish',
  'virt-inspector': 'usr/bin/virt-inspector',
  'libguestfs-test-tool': 'usr/bin/libguestfs-test-tool',
  'qemu-img': 'usr/bin/qemu-img',
  mke2fs: 'usr/sbin/mke2fs',
  depmod: 'usr/sbin/depmod',
}
/** Bulk that the programs do not need. */
const DOCUMENTS = [
  'doc',
  'man',
  'locale',
  'info',
  'icons',
  'bug',
  'lintian',
  'bash-completion',
  'i18n',
  'perl5',
  'perl',
]
/** Inserted before the appliance's root can be mounted; udev and the daemon find the others. */
const EARLY = ['virtio_pci', 'virtio_scsi', 'sd_mod', 'virtio_console', 'virtio_rng', 'ext4']
const MODULE_FOLDERS = ['arch', 'block', 'crypto', 'drivers', 'fs', 'lib']
const ROOT_SIZE = '3G'

export async function ensureGuestfs(options: FetchOptions = {}): Promise<Guestfs> {
  // Before the tree: what is fetched one by one is fetched under one lock.
  const busybox = await ensureBusybox(options)
  const kernel = await ensureKernel('6.1', options)
  const modules = await kernelModules(kernel, EARLY)
  const tree = await ensurePackages(
    {
      name: 'guestfs',
      suite: 'bookworm',
      install: ['guestfish', 'guestfs-tools', 'libguestfs-tools', ...APPLIANCE],
      drop: UNUSED,
      launchers: Object.entries(PROGRAMS).map(([name, program]) => ({
        script: `bin.vmchannel/${name}`,
        program,
        env: {
          QEMU_MODULE_DIR: { inTree: 'usr/lib/x86_64-linux-gnu/qemu' },
          MKE2FS_CONFIG: { inTree: 'etc/mke2fs.conf' },
        },
      })),
      async finish(unpacked, debs) {
        await mergeUsr(unpacked)
        // An absolute link leads out of the tree.
        await rm(join(unpacked, PROGRAMS['depmod']!))
        await symlink('../bin/kmod', join(unpacked, PROGRAMS['depmod']!))
        for (const name of DOCUMENTS) await rm(join(unpacked, 'usr/share', name), { recursive: true, force: true })
        await writeFile(join(unpacked, 'dpkg-status'), await dpkgStatus(debs))
        await makeAppliance({ tree: unpacked, tools: join(unpacked, 'bin.vmchannel'), kernel, modules, busybox })
      },
    },
    options,
  )
  return { bin: join(tree, 'bin.vmchannel'), appliance: join(tree, 'appliance.vmchannel'), tree }
}

/** /bin, /lib and so on become links into /usr, as on an installed Debian; packages bring both. */
async function mergeUsr(tree: string): Promise<void> {
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    await mkdir(join(tree, 'usr', name), { recursive: true })
    if (existsSync(join(tree, name))) await mergeFolder(join(tree, name), join(tree, 'usr', name))
    await symlink(`usr/${name}`, join(tree, name))
  }
}

async function mergeFolder(from: string, to: string): Promise<void> {
  for (const name of await readdir(from)) {
    const [source, target] = [join(from, name), join(to, name)]
    const isFolder = (await lstat(source)).isDirectory()
    if (isFolder && (await lstat(target).catch(() => undefined))?.isDirectory()) await mergeFolder(source, target)
    else await rename(source, target)
  }
  await rmdir(from)
}

/** What dpkg would say on a system where all of these are installed. */
async function dpkgStatus(debs: string): Promise<string> {
  const records: string[] = []
  for (const deb of (await readdir(debs)).filter((name) => name.endsWith('.deb')).toSorted()) {
    const fields = (await command('dpkg-deb', ['-f', join(debs, deb)])).toString()
    records.push(fields.replace('\n', '\nStatus: install ok installed\n'))
  }
  return records.join('\n')
}

interface Parts {
  tree: string
  tools: string
  kernel: Kernel
  modules: readonly string[]
  busybox: string
}

async function makeAppliance({ tree, tools, kernel, modules, busybox }: Parts): Promise<void> {
  const shipped = join(tree, 'usr/lib/x86_64-linux-gnu/guestfs/supermin.d')
  for (const name of ['daemon', 'init', 'udev-rules']) {
    await command('tar', ['xzf', join(shipped, `${name}.tar.gz`), '--no-same-owner', '-C', tree])
  }
  for (const name of ['dev', 'proc', 'sys', 'run', 'tmp', 'var/tmp']) await mkdir(join(tree, name), { recursive: true })
  const home = join(tree, 'usr/lib/modules', kernel.release)
  await mkdir(home, { recursive: true })
  for (const name of MODULE_FOLDERS) {
    await cp(join(kernel.modulesRoot, 'kernel', name), join(home, 'kernel', name), { recursive: true })
  }
  for (const name of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    if (existsSync(join(kernel.modulesRoot, name))) await cp(join(kernel.modulesRoot, name), join(home, name))
  }
  await command(join(tools, 'depmod'), ['-b', tree, kernel.release])
  const image = `${tree}.root`
  await rm(image, { force: true })
  // supermin writes plain ext2 as well: no journal, the disk is thrown away after each boot.
  const words = ['-q', '-F', '-t', 'ext2', '-L', 'appliance', '-E', 'root_owner=0:0', '-d', tree, image, ROOT_SIZE]
  await command(join(tools, 'mke2fs'), words)
  const folder = join(tree, 'appliance.vmchannel')
  await mkdir(folder, { recursive: true })
  await rename(image, join(folder, 'root'))
  await cp(kernel.vmlinuz, join(folder, 'kernel'))
  await writeFile(join(folder, 'initrd'), await initrd(busybox, modules))
  await writeFile(
    join(folder, 'README.fixed'),
    'A fixed appliance of libguestfs 1.48, made by vmchannel for its tests.\n',
  )
  await chmod(join(folder, 'kernel'), 0o644)
}

/** Inserts the modules in their order, mounts the root that the kernel's command line names, hands over. */
async function initrd(busybox: string, modules: readonly string[]): Promise<Buffer> {
  const folder = (name: string): CpioEntry => ({ name, mode: S_IFDIR | 0o755 })
  const names = [...modules.entries()].map(([at, path]) => `${String(at).padStart(2, '0')}-${basename(path)}`)
  return cpio([
    ...['bin', 'dev', 'modules', 'proc', 'root', 'sys'].map(folder),
    { name: 'bin/busybox', mode: S_IFREG | 0o755, data: await readFile(busybox) },
    { name: 'init', mode: S_IFREG | 0o755, data: await readFile(guestSource('appliance-init.sh')) },
    ...(await Promise.all(
      names.map(async (name, at) => ({
        name: `modules/${name}`,
        mode: S_IFREG | 0o644,
        data: await readFile(modules[at] ?? ''),
      })),
    )),
  ])
}
