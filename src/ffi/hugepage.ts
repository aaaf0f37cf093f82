/**
 * Huge pages of a hugetlbfs file as memory that a device may reach: mapped one by one, at a known physical address.
 * Called by driver/attach/uio/hugepages.ts.
 */

import { closeSync, openSync, readSync } from 'node:fs'
import { VmchannelError } from '../errors.ts'
import { declare, errno, errnoName, viewNative } from './libc.ts'
import {
  MADV_DONTDUMP,
  MADV_DONTFORK,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_POPULATE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ_WRITE,
  madviseFunction,
  mmapFunction,
} from './memory-calls.ts'

const mountFunction = declare(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
)
const umountFunction = declare('int umount2(const char *target, int flags)')

const MS_NOSUID = 2
const MS_NODEV = 4
const MS_NOEXEC = 8

/** /proc/self/pagemap: one 64-bit word for each page of 4 KiB. */
const PAGE = 4096n
const PAGEMAP_PRESENT = 1n << 63n
const PAGEMAP_PFN = (1n << 55n) - 1n

export interface HugePage {
  readonly bytes: Uint8Array
  /** Host virtual address of `bytes[0]`. */
  readonly address: number
  /** Where it lies in the machine's memory. */
  readonly physical: number
}

/** Maps one page of a hugetlbfs file; undefined when the kernel has no huge page left. Throws VmchannelError. */
export function mapHugePage(fd: number, offset: number, size: number): HugePage | undefined {
  const address = mmapFunction(0, size, PROT_READ_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset)
  if (address === -1) {
    const name = errnoName(errno())
    if (name === 'ENOMEM') return undefined
    throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `a huge page cannot be mapped: ${name}`, {
      errno: name,
      syscall: 'mmap',
    })
  }
  madviseFunction(address, size, MADV_DONTFORK)
  madviseFunction(address, size, MADV_DONTDUMP)
  // A page that is not there would end this process when it is touched (a limit of its cgroup): asked first.
  const physical = physicalAddress(address)
  if (physical === undefined) {
    dropHugePage(address, size)
    return undefined
  }
  return { bytes: new Uint8Array(viewNative(BigInt(address), size)), address, physical }
}

/** Gives a page back; views that somebody still holds read zeros and write into nothing shared. */
export function dropHugePage(address: number, size: number): void {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
  mmapFunction(address, size, PROT_READ_WRITE, flags, -1, 0)
}

/** Where the page at `address` lies; undefined when it is not present. The kernel tells CAP_SYS_ADMIN only. */
function physicalAddress(address: number): number | undefined {
  const entry = Buffer.alloc(8)
  const fd = openSync('/proc/self/pagemap', 'r')
  try {
    readSync(fd, entry, 0, 8, Number(BigInt(address) / PAGE) * 8)
  } finally {
    closeSync(fd)
  }
  const word = entry.readBigUInt64LE(0)
  if (!(word & PAGEMAP_PRESENT)) return undefined
  const frame = word & PAGEMAP_PFN
  if (frame === 0n)
    throw new VmchannelError(
      'ERR_VMCHANNEL_PLATFORM',
      'the kernel does not tell where memory lies (/proc/self/pagemap)',
      {
        hint: 'This takes root with CAP_SYS_ADMIN; a container needs it too.',
      },
    )
  return Number(frame * PAGE)
}

/** Mounts a hugetlbfs for root only; throws VmchannelError. */
export function mountHugetlbfs(target: string, pageSize: number): void {
  const data = `pagesize=${pageSize / 1024}K,mode=0700`
  if (mountFunction('hugetlbfs', target, 'hugetlbfs', MS_NOSUID | MS_NODEV | MS_NOEXEC, data) === 0) return
  const name = errnoName(errno())
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `hugetlbfs cannot be mounted at ${target}: ${name}`, {
    errno: name,
    syscall: 'mount',
    hint:
      name === 'ENODEV'
        ? 'This kernel was built without CONFIG_HUGETLBFS.'
        : 'Mount one yourself: mount -t hugetlbfs none /dev/hugepages',
  })
}

/** Unmounts where nobody has a file open there any more. */
export function unmountUnused(target: string): void {
  umountFunction(target, 0)
}
