/**
 * A Debian desktop as a disk image: systemd with logind, a session on seat0 that logs itself in (Xvfb, a window manager,
 * a locker that logind's LockedHint follows), qemu-guest-agent, spice-vdagent, xclip and xsel. Stock packages only; no
 * kernel, no network. desktop-guest.ts boots it.
 *
 * mmdebstrap fills a folder, `mke2fs -d` makes an ext4 file system of it: that needs root, but a container's root will
 * do. Made once for each recipe and kept in the cache.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { VmchannelError } from '../src/errors.ts'
import { command, tryCommand } from './command.ts'
import { PrivateApt, type Suite } from './fetch/apt.ts'
import { withLock } from './fetch/lock.ts'
import { ensurePackages, type FetchOptions } from './fetch/packages.ts'
import { type Progress, stderrProgress } from './fetch/progress.ts'
import { cacheRoot, findProgram, guestSource } from './paths.ts'

const SUITE: Suite = 'trixie'
const PACKAGES = [
  ...['systemd-sysv', 'udev', 'dbus', 'libpam-systemd'],
  ...['qemu-guest-agent', 'spice-vdagent'],
  ...['xvfb', 'evilwm', 'xss-lock', 'i3lock', 'xclip', 'xsel', 'x11-utils'],
]

/** Nothing that runs here looks at them; together more than half of the image. */
const LEFT_OUT = [
  ...['usr/share/doc', 'usr/share/man', 'usr/share/info', 'usr/share/locale', 'usr/share/icons', 'usr/share/lintian'],
  ...['var/cache/apt', 'var/lib/apt/lists', 'usr/lib/udev/hwdb.d', 'usr/lib/udev/hwdb.bin'],
]
/** Drawing in 3D, which Xvfb is told not to offer. */
const LEFT_OUT_LIBRARIES = /^(libLLVM|libgallium|libz3\.)/
const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

/** Units that would only cost time at boot, or write on the console. */
const MASKED = [
  ...['serial-getty@ttyS0.service', 'getty@tty1.service', 'apt-daily.timer', 'apt-daily-upgrade.timer'],
  ...[
    'dpkg-db-backup.timer',
    'e2scrub_all.timer',
    'e2scrub_reap.service',
    'fstrim.timer',
    'systemd-pcrmachine.service',
  ],
  ...['dev-hugepages.mount', 'dev-mqueue.mount', 'sys-kernel-tracing.mount', 'systemd-binfmt.service'],
  ...['modprobe@configfs.service', 'modprobe@drm.service', 'modprobe@efi_pstore.service', 'modprobe@dm_mod.service'],
  ...['ldconfig.service', 'systemd-journal-catalog-update.service', 'systemd-update-done.service'],
  ...[
    'modprobe@loop.service',
    'systemd-pstore.service',
    'systemd-journal-flush.service',
    'systemd-random-seed.service',
  ],
]

const FILES: Readonly<Record<string, string>> = {
  'etc/hostname': 'desktop\n',
  'etc/fstab': '',
  // A fixed one: an empty one makes each start the first start, with everything that systemd does then.
  'etc/machine-id': '76a6d1cbb6f94d39a1e63e9be4a6a1d5\n',
  // The cloud kernel has no uinput: the agent's mouse goes nowhere.
  'etc/default/spice-vdagentd': 'SPICE_VDAGENTD_EXTRA_ARGS="-f -u /dev/null"\n',
}

/** Path of the image, made now or before. */
export async function ensureDesktopImage(options: FetchOptions = {}): Promise<string> {
  const own = { 'desktop.service': await text('desktop.service'), 'session.sh': await text('session.sh') }
  const recipe = JSON.stringify([SUITE, PACKAGES, LEFT_OUT, String(LEFT_OUT_LIBRARIES), MASKED, FILES, own])
  const name = `desktop-${createHash('sha256').update(recipe).digest('hex').slice(0, 12)}`
  const folder = join(cacheRoot(), 'disks')
  const image = join(folder, `${name}.ext4`)
  if (existsSync(image)) return image
  const progress = options.progress ?? stderrProgress()
  await mkdir(folder, { recursive: true })
  const tool = await ensurePackages(
    { name: 'mmdebstrap', suite: SUITE, install: ['mmdebstrap'], keep: /^mmdebstrap=/ },
    options,
  )
  return withLock(
    folder,
    async () => {
      if (!existsSync(image)) await build(join(tool, 'usr/bin/mmdebstrap'), image, own, progress)
      return image
    },
    () => progress.step('desktop image: somebody else makes it, waiting'),
  )
}

async function build(tool: string, image: string, own: Record<string, string>, progress: Progress): Promise<void> {
  const started = Date.now()
  const tree = `${image}.tree`
  const mke2fs = checkPlace()
  try {
    await rm(tree, { recursive: true, force: true })
    const apt = new PrivateApt(join(cacheRoot(), 'apt'))
    await apt.prepare((step) => progress.step(step))
    const words = [tool, '--mode=root', '--variant=minbase', `--include=${PACKAGES.join(',')}`]
    words.push('--customize-hook=chroot "$1" useradd --create-home --shell /bin/bash guest')
    if (!(await mayMount())) words.push('--skip=chroot/mount')
    await command('sh', ['-c', 'exec perl "$@" 2>&1', 'sh', ...words, SUITE, tree, await apt.sources(SUITE)], {
      onLine: (line) => {
        const step = /^I: (.*?)\.*$/.exec(line)?.[1]
        if (step && !step.startsWith('success')) progress.step(`desktop image: ${step}`)
      },
    })
    progress.step('desktop image: file system')
    await arrange(tree, own)
    const size = await makeFileSystem(mke2fs, tree, image)
    const seconds = Math.round((Date.now() - started) / 1000)
    progress.done(`desktop image: ${Math.round(size / 1e6)} MB, made in ${seconds} s`)
  } catch (error) {
    progress.fail('desktop image: not made')
    throw error
  } finally {
    await rm(tree, { recursive: true, force: true })
  }
}

/** What the build needs of this machine; the path of mke2fs. */
function checkPlace(): string {
  if (process.getuid?.() !== 0)
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', 'only root can make the desktop image: its files have owners', {
      hint: 'run "node dist/lab/cli.js desktop-image" once as root; the image in the cache is for everybody',
    })
  const found = ['perl', 'gpgv', 'mke2fs'].map((name) => [name, findProgram(name) ?? inSbin(name)] as const)
  for (const [name, path] of found) {
    if (path) continue
    const packages = { perl: 'perl', gpgv: 'gpgv', mke2fs: 'e2fsprogs' } as Record<string, string>
    throw new VmchannelError(
      'ERR_VMCHANNEL_PLATFORM',
      `the desktop image cannot be made: there is no ${name} on PATH`,
      {
        hint: `install the package ${packages[name]}`,
      },
    )
  }
  return found.at(-1)![1]!
}

function inSbin(name: string): string | undefined {
  return ['/usr/sbin', '/sbin'].map((folder) => join(folder, name)).find((path) => existsSync(path))
}

/** A container's root often may not; packages can be installed without. */
async function mayMount(): Promise<boolean> {
  return (await tryCommand('unshare', ['--mount', 'true'])).status === 0
}

async function arrange(tree: string, own: Record<string, string>): Promise<void> {
  for (const path of LEFT_OUT) await rm(join(tree, path), { recursive: true, force: true })
  for (const name of await readdir(join(tree, LIBRARIES)))
    if (LEFT_OUT_LIBRARIES.test(name)) await rm(join(tree, LIBRARIES, name))
  const files = {
    ...FILES,
    'etc/systemd/system/desktop.service': own['desktop.service']!,
    'usr/local/bin/desktop-session': own['session.sh']!,
  }
  for (const [path, content] of Object.entries(files)) {
    await rm(join(tree, path), { force: true })
    await mkdir(dirname(join(tree, path)), { recursive: true })
    await writeFile(join(tree, path), content)
  }
  await chmod(join(tree, 'usr/local/bin/desktop-session'), 0o755)
  const units = join(tree, 'etc/systemd/system')
  await mkdir(join(units, 'multi-user.target.wants'), { recursive: true })
  await symlink('../desktop.service', join(units, 'multi-user.target.wants/desktop.service'))
  for (const unit of MASKED) {
    await rm(join(units, unit), { force: true })
    await symlink('/dev/null', join(units, unit))
  }
}

/** Bytes that the image takes on the disk: it is sparse. */
async function makeFileSystem(mke2fs: string, tree: string, image: string): Promise<number> {
  const used = Number(/^\d+/.exec((await command('du', ['-sm', tree])).toString())?.[0])
  const part = `${image}.part`
  await rm(part, { force: true })
  // Every guest works on a snapshot of its own, which is thrown away: a journal is for nothing.
  const features = ['-t', 'ext4', '-O', '^has_journal', '-m', '0', '-L', 'desktop']
  await command(mke2fs, ['-q', '-F', ...features, '-d', tree, part, `${Math.ceil(used * 1.15) + 96}M`])
  await rename(part, image)
  return (await stat(image)).blocks * 512
}

function text(name: string): Promise<string> {
  return readFile(guestSource(join('desktop', name)), 'utf8')
}
