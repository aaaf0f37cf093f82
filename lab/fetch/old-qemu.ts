/**
 * QEMU 7.2 of bookworm, which has no vfio-user-pci: for the fallbacks, and for what its own virtio-serial-pci does.
 * Always the cached one; ensureQemu (qemu.ts) is the QEMU for everything else.
 */
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { VmchannelError } from '../../src/errors.ts'
import { tryCommand } from '../command.ts'
import { writeLauncher } from './launcher.ts'
import { ensurePackages, type FetchOptions } from './packages.ts'
import type { Qemu } from './qemu.ts'

const NAME = 'qemu-system-x86_64'
const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

export async function ensureOldQemu(options: FetchOptions = {}): Promise<Qemu> {
  const tree = await ensurePackages(
    {
      name: 'qemu-7.2',
      suite: 'bookworm',
      install: ['qemu-system-x86'],
      finish: async (unpacked, final) => {
        // Packages of bookworm still have a /lib of its own.
        await cp(join(unpacked, 'lib'), join(unpacked, 'usr/lib'), { recursive: true, verbatimSymlinks: true })
        await writeLauncher(join(unpacked, 'bin', NAME), final, `usr/bin/${NAME}`, {
          env: { QEMU_MODULE_DIR: join(final, LIBRARIES, 'qemu') },
          args: ['-L', join(final, 'usr/share/qemu'), '-L', join(final, 'usr/share/seabios')],
          libraries: [`${LIBRARIES}/pulseaudio`],
        })
      },
    },
    options,
  )
  const path = join(tree, 'bin', NAME)
  const { status, stdout } = await tryCommand(path, ['--version'])
  const version = /version (\d+\.\d+\.\d+)/.exec(stdout.toString())?.[1]
  if (status === 0 && version) return { path, version, source: 'cache' }
  throw new VmchannelError('ERR_VMCHANNEL_QEMU', `${path} does not start`, {
    hint: `remove ${tree} to have it fetched again`,
  })
}
