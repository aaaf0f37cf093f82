/**
 * Memory for a device without an IOMMU: huge pages, which do not move, in a file that outlives this process. A driver
 * that is killed leaves a device that may still write to its pages; they stay that file's until the next start has
 * reset the device. So `openHugePages` comes after the reset.
 */

import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { VmchannelError } from '../../../errors.ts'
import { dropHugePage, mapHugePage, mountHugetlbfs, unmountUnused, type HugePage } from '../../../ffi/hugepage.ts'
import type { Region } from '../../../mem/guest-memory.ts'

const RUN = '/run/vmchannel'
/** Where we mount one ourselves; found again there after a kill. */
const OWN_MOUNT = join(RUN, 'hugepages')

export interface HugePages {
  readonly pageSize: number
  /** One more page, whatever `len` is: the pool cuts it up. */
  grow(len: number): Region
  /** Gives all of it back; the device has been reset. */
  close(): void
}

/** `name` tells one device's file from another's. Throws VmchannelError. */
export function openHugePages(name: string): HugePages {
  const pageSize = defaultPageSize()
  const folder = findMount(pageSize) ?? makeMount(pageSize)
  const path = join(folder, `vmchannel-${name}`)
  // Left by a driver that was killed; its device has been reset by now.
  if (existsSync(path)) unlinkSync(path)
  const fd = openSync(path, 'wx+', 0o600)
  const pages: HugePage[] = []
  const note = `${RUN}/added-${name}`
  let added = readNote(note)

  const grow = (len: number): Region => {
    if (len > pageSize)
      throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `${len} bytes do not fit into one huge page of ${pageSize}`)
    const offset = pages.length * pageSize
    ftruncateSync(fd, offset + pageSize)
    let page = mapHugePage(fd, offset, pageSize)
    if (!page && addHugePage(pageSize)) {
      writeNote(note, ++added)
      page = mapHugePage(fd, offset, pageSize)
    }
    if (!page) throw noHugePages(pageSize)
    pages.push(page)
    return { base: page.physical, size: pageSize, bytes: page.bytes, address: page.address, writable: true }
  }

  const close = (): void => {
    for (const page of pages.splice(0)) dropHugePage(page.address, pageSize)
    closeSync(fd)
    unlinkSync(path)
    if (added > 0) setCount(pageSize, -added)
    rmSync(note, { force: true })
    added = 0
    if (folder === OWN_MOUNT) unmountUnused(OWN_MOUNT)
  }

  try {
    // The first page shows at once whether there is any.
    const first = grow(pageSize)
    let unused: Region | undefined = first
    return {
      pageSize,
      grow(len) {
        const page = unused ?? grow(len)
        unused = undefined
        return page
      },
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}

function defaultPageSize(): number {
  const size = /^Hugepagesize:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1]
  if (size) return Number(size) * 1024
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', 'this kernel has no huge pages', {
    hint: 'UIO needs them (CONFIG_HUGETLBFS): memory that has a fixed place. Behind a vIOMMU, VFIO does without.',
  })
}

function findMount(pageSize: number): string | undefined {
  const sizes = [`${pageSize / 1024}K`, `${pageSize / 2 ** 20}M`, `${pageSize / 2 ** 30}G`]
  for (const line of readFileSync('/proc/mounts', 'latin1').split('\n')) {
    const [, target = '', type, options = ''] = line.split(' ')
    const size = /(?:^|,)pagesize=(\w+)/.exec(options)?.[1]
    if (type === 'hugetlbfs' && /(^|,)rw(,|$)/.test(options) && (size === undefined || sizes.includes(size)))
      return target
  }
  return undefined
}

function makeMount(pageSize: number): string {
  mkdirSync(OWN_MOUNT, { recursive: true, mode: 0o700 })
  mountHugetlbfs(OWN_MOUNT, pageSize)
  return OWN_MOUNT
}

function countFile(pageSize: number): string {
  return `/sys/kernel/mm/hugepages/hugepages-${pageSize / 1024}kB/nr_hugepages`
}

function setCount(pageSize: number, change: number): number {
  const file = countFile(pageSize)
  const before = Number(readFileSync(file, 'latin1'))
  try {
    writeFileSync(file, String(Math.max(0, before + change)))
  } catch {
    return 0 // A read-only sysfs: what there is must do.
  }
  // The kernel makes as many as it can, and does not say that it could not.
  return Number(readFileSync(file, 'latin1')) - before
}

function addHugePage(pageSize: number): boolean {
  return setCount(pageSize, 1) > 0
}

/** Pages that a driver which was killed had the kernel make: they are given back with our own. */
function readNote(path: string): number {
  const count = existsSync(path) ? Number(readFileSync(path, 'latin1')) : 0
  return Number.isInteger(count) && count > 0 ? count : 0
}

function writeNote(path: string, count: number): void {
  try {
    mkdirSync(RUN, { recursive: true, mode: 0o700 })
    writeFileSync(path, String(count))
  } catch {
    // Nowhere to write: after a kill those pages stay reserved until the next boot.
  }
}

function noHugePages(pageSize: number): VmchannelError {
  const count = readFileSync(countFile(pageSize), 'latin1').trim()
  return new VmchannelError(
    'ERR_VMCHANNEL_MEMORY',
    `no huge page of ${pageSize / 2 ** 20} MiB is free (there are ${count}), and the kernel cannot make one now`,
    {
      hint:
        `Free some memory, or reserve pages early: hugepages=8 on the kernel's command line, ` +
        `or echo 8 >/proc/sys/vm/nr_hugepages soon after boot.`,
    },
  )
}
