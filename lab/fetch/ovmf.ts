/** UEFI firmware for guests: Debian's OVMF, which has a virtio-serial driver (EDK2's VirtioSerialDxe) since 2023. */
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ensurePackages, type FetchOptions } from './packages.ts'

/**
 * QEMU arguments for a machine that boots by UEFI. `folder` gets a copy of the variable store: the firmware writes into
 * it.
 */
export async function ovmfArgs(folder: string, options: FetchOptions = {}): Promise<string[]> {
  const tree = await ensurePackages({ name: 'ovmf', suite: 'trixie', install: ['ovmf'], keep: /^ovmf=/ }, options)
  const images = join(tree, 'usr/share/OVMF')
  const vars = join(folder, 'OVMF_VARS_4M.fd')
  await copyFile(join(images, 'OVMF_VARS_4M.fd'), vars)
  return [
    ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${join(images, 'OVMF_CODE_4M.fd')}`],
    ...['-drive', `if=pflash,unit=1,format=raw,file=${vars}`],
  ]
}
