/**
 * QEMU 7.2 of bookworm, which has no vfio-user-pci: for the fallbacks, and for what its own virtio-serial-pci does.
 * Always the cached one; ensureQemu (qemu.ts) is the QEMU for everything else.
 */
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { ensurePackages, type FetchOptions } from './packages.ts'
import { askCached, ownModules, QEMU_LAUNCHER, type Qemu } from './qemu.ts'

export async function ensureOldQemu(options: FetchOptions = {}): Promise<Qemu> {
  const tree = await ensurePackages(
    {
      name: 'qemu-7.2',
      suite: 'bookworm',
      install: ['qemu-system-x86'],
      // Packages of bookworm still have a /lib of its own.
      finish: (unpacked) =>
        cp(join(unpacked, 'lib'), join(unpacked, 'usr/lib'), { recursive: true, verbatimSymlinks: true }),
      launchers: [QEMU_LAUNCHER],
    },
    options,
  )
  await ownModules(tree)
  const path = join(tree, QEMU_LAUNCHER.script)
  return { path, version: askCached(path, tree).version, source: 'cache' }
}
