/**
 * Disks as QEMU's arguments: each by its descriptor, its format said, and no other file beside it. Called by
 * appliance-machine.ts.
 */

import type { DiskFile } from './disk-file.ts'
import { headerOverlay, nameless } from './header-overlay.ts'
import type { Inheritance } from './inheritance.ts'

export type Drive = Pick<DiskFile, 'fd' | 'format' | 'device' | 'size' | 'head' | 'sectorSize'>

/** Their headers can name a file that no option keeps QEMU from opening: it reads them as they were checked. */
const PRIVATE_HEADER: ReadonlySet<string> = new Set(['qcow2', 'vmdk'])

export function driveArguments(id: string, drive: Drive, inherited: Inheritance): string[] {
  const node = JSON.stringify(blockNode(drive, inherited)).replaceAll(',', ',,')
  const { sectorSize } = drive
  const sectors = sectorSize === 512 ? '' : `,logical_block_size=${sectorSize},physical_block_size=${sectorSize}`
  return [
    // What is written goes to a temporary file.
    ...['-drive', `file=json:${node},snapshot=on,cache=unsafe,id=${id},if=none`],
    ...['-device', `scsi-hd,drive=${id}${sectors}`],
  ]
}

/** The tree of block drivers under one disk, as -blockdev has it. */
function blockNode({ fd, format, device, size, head }: Drive, inherited: Inheritance): Record<string, unknown> {
  const file = (number: number, driver = 'file'): Record<string, unknown> => ({
    ...{ driver, filename: inherited.set(number), locking: 'off', 'read-only': true },
  })
  const image = file(fd, device ? 'host_device' : 'file')
  const source = PRIVATE_HEADER.has(format)
    ? {
        driver: 'qcow2',
        'read-only': true,
        file: file(inherited.keep(nameless(headerOverlay(head, size)))),
        backing: image,
      }
    : image
  return { driver: format, 'read-only': true, backing: null, file: source }
}
