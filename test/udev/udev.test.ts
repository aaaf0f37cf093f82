/** The names /dev/vmchN by systemd's udev, from what `vmchannel udev print` prints; and what udev says of the rules. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ensurePackages } from '../../lab/fetch/packages.ts'
import type { GuestOptions } from '../../lab/initramfs.ts'
import { installerScript } from '../../src/udev/installer.ts'
import { udevRules } from '../../src/udev/rules.ts'
import { namesPorts } from './naming.ts'

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

/** udev and the libraries it is linked with, of Debian trixie. */
function ensureUdev(): Promise<string> {
  const libraries =
    'acl1|audit1|blkid1|c6|cap-ng0|cap2|crypt1|gcc-s1|kmod2|mount1|pcre2-8-0|selinux1|ssl3t64|systemd0|systemd-shared|udev1|zstd1'
  return ensurePackages({
    name: 'udev',
    suite: 'trixie',
    install: ['udev'],
    keep: new RegExp(`^(udev|zlib1g|lib(${libraries}))=`),
  })
}

/** Runs udevadm here, with its own loader and libraries. */
function udevadm(tree: string, words: string[]): string {
  const libraries = [join(tree, LIBRARIES), join(tree, LIBRARIES, 'systemd')].join(':')
  const loader = join(tree, LIBRARIES, 'ld-linux-x86-64.so.2')
  return execFileSync(loader, ['--library-path', libraries, ...words], { encoding: 'utf8', stdio: 'pipe' })
}

async function udevGuest(): Promise<GuestOptions> {
  const tree = await ensureUdev()
  const program = join(tree, 'usr/bin/udevadm')
  const files: Record<string, string | { text: string }> = {
    '/root/install.sh': { text: installerScript(false) },
    '/etc/passwd': { text: 'root:x:0:0::/root:/bin/sh\n' },
    '/etc/group': { text: 'root:x:0:\n' },
    '/lib64/ld-linux-x86-64.so.2': join(tree, LIBRARIES, 'ld-linux-x86-64.so.2'),
    '/usr/bin/udevadm': program,
    '/usr/lib/systemd/systemd-udevd': program,
    '/usr/lib/udev/rules.d/50-udev-default.rules': join(tree, 'usr/lib/udev/rules.d/50-udev-default.rules'),
  }
  for (const [, path] of udevadm(tree, ['--list', program]).matchAll(/=> (\/\S+)/g)) {
    files[`/${LIBRARIES}${path!.includes('/systemd/') ? '/systemd' : ''}/${basename(path!)}`] = path!
  }
  // Kernel 6.1 has no autofs or cgroups here that udevd could want; it says so and goes on.
  return { files, init: 'export PATH=/bin:/usr/bin; mkdir -p /run/udev' }
}

const START = `export PATH=/bin:/usr/bin
[ -e /run/udev/control ] || /usr/lib/systemd/systemd-udevd --daemon
# It has just started: a rules file that comes within its first seconds is seen only if it is told of it.
i=0; while ! udevadm control --ping && [ $i -lt 20 ]; do i=$((i+1)); sleep 0.5; done
sh /root/install.sh
udevadm control --reload
udevadm trigger --action=add --subsystem-match=virtio-ports
udevadm settle --timeout=30`

describe('the rules for udev', () => {
  it.each([
    ['plain', {}],
    ['with group and mode', { group: 'root', mode: '0660' }],
  ])('udevadm verify finds nothing wrong: %s', async (_, access) => {
    const tree = await ensureUdev()
    const folder = mkdtempSync(join(tmpdir(), 'vmchannel-udev-'))
    try {
      const file = join(folder, '70-vmchannel.rules')
      writeFileSync(file, udevRules(access))
      const program = join(tree, 'usr/bin/udevadm')
      expect(udevadm(tree, [program, 'verify', '--resolve-names=never', file])).toContain('Success: 1')
      writeFileSync(file, udevRules(access).replace('SUBSYSTEM!=', 'SUBSYSTM!='))
      expect(() => udevadm(tree, [program, 'verify', file])).toThrow()
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('systemd-udevd', () => namesPorts(udevGuest, START))
