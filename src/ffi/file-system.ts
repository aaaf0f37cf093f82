/**
 * Whether memory may be mapped from a file that somebody else has sent: only where no third party answers for its
 * pages. Called by the DMA table before anything else is asked of the file.
 *
 * Touching a page of a file on FUSE or a network file system waits for its server, which may be the sender: the whole
 * process would stand still for as long as that likes. Even fstat(2) asks the server. So shared memory (memfd, tmpfs,
 * hugetlbfs), which the kernel knows by itself, is taken, and files on local file systems that are mounted where this
 * process can see them, since root decides what is mounted here; nothing else.
 */

import { readFileSync } from 'node:fs'
import { declare } from './libc.ts'

const fcntlFunction = declare('int fcntl(int fd, int command, int64_t argument)')
const statxCall = declare(
  'int64_t syscall(int64_t n, int64_t dir, const char *path, int64_t flags, int64_t mask, void *out)',
)

const SYS_STATX = process.arch === 'arm64' ? 291 : 332
const AT_EMPTY_PATH = 0x1000
/** Only what is known already: no server is asked. */
const AT_STATX_DONT_SYNC = 0x4000
const STATX_SIZE = 256
const STATX = { devMajor: 136, devMinor: 140 } as const
const F_GET_SEALS = 1034

const LOCAL: ReadonlySet<string> = new Set([
  ...['tmpfs', 'hugetlbfs', 'ramfs', 'devtmpfs'],
  ...['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs', 'zfs', 'bcachefs', 'jfs', 'overlay'],
])

/** Why the file behind `fd` cannot be guest memory; undefined where it can. */
export function foreignFile(fd: number): string | undefined {
  // Only shared memory has seals, or the lack of them.
  if (fcntlFunction(fd, F_GET_SEALS, 0) !== -1) return undefined
  let mounts: string
  let mount: string | undefined
  try {
    mount = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
    mounts = readFileSync('/proc/self/mountinfo', 'utf8')
  } catch {
    // No /proc in this sandbox: what is known of the VMM has to do.
    return undefined
  }
  const type = mountedType(mounts, mount, deviceOf(fd))
  if (type === undefined) return 'its file is on no file system that is mounted here'
  if (LOCAL.has(type)) return undefined
  return `its file is on ${type}, and who serves that could stop this process`
}

/** The type of file system in the lines of mountinfo: of the mount, or of any with the same device ("8:1"). */
export function mountedType(
  mountinfo: string,
  mount: string | undefined,
  device: string | undefined,
): string | undefined {
  let found: string | undefined
  for (const line of mountinfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const [id, , own] = left.split(' ')
    const type = right.split(' ')[0]
    if (!type) continue
    if (id === mount) return type
    // btrfs gives each of its parts a number of its own: then only the mount tells.
    if (own === device) found ??= type
  }
  return found
}

function deviceOf(fd: number): string | undefined {
  const out = new Uint8Array(new ArrayBuffer(STATX_SIZE))
  if (statxCall(SYS_STATX, fd, '', AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, out) !== 0) return undefined
  const view = new DataView(out.buffer)
  return `${view.getUint32(STATX.devMajor, true)}:${view.getUint32(STATX.devMinor, true)}`
}
