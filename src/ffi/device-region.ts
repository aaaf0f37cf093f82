/**
 * Memory that is shared with a device: its registers (a BAR behind a file), or anonymous pages that it may reach.
 * Called by the attachments for UIO and VFIO.
 */

import { declare, systemError, viewNative } from './libc.ts'

const mmapFunction = declare('int64_t mmap(int64_t address, size_t len, int prot, int flags, int fd, int64_t offset)')
const madviseFunction = declare('int madvise(int64_t address, size_t len, int advice)')

const PROT_READ_WRITE = 3
const MAP_SHARED = 0x01
const MAP_PRIVATE = 0x02
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000
const MAP_POPULATE = 0x8000
const MADV_DONTFORK = 10
const MADV_DONTDUMP = 16

export interface DeviceRegion {
  readonly bytes: Uint8Array
  /** Virtual address of `bytes[0]`. */
  readonly address: number
  /** Lets go of it: views that somebody still holds read zeros from now on. */
  drop(): void
}

/** Maps a piece of a file. Throws VmchannelError with `errno`. */
export function mapRegion(fd: number, offset: number, size: number, what: string): DeviceRegion {
  return map(size, MAP_SHARED, fd, offset, what)
}

/** Pages for a device: shared, so that a fork does not move them. */
export function anonymousPages(size: number): DeviceRegion {
  return map(size, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0, `${size} bytes of memory for the device`)
}

function map(size: number, flags: number, fd: number, offset: number, what: string): DeviceRegion {
  const address = mmapFunction(0, size, PROT_READ_WRITE, flags, fd, offset)
  if (address === -1) throw systemError('mmap', what, 'ERR_VMCHANNEL_PLATFORM')
  madviseFunction(address, size, MADV_DONTFORK)
  madviseFunction(address, size, MADV_DONTDUMP)
  let dropped = false
  return {
    bytes: new Uint8Array(viewNative(BigInt(address), size)),
    address,
    drop() {
      if (dropped) return
      dropped = true
      const fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
      mmapFunction(address, size, PROT_READ_WRITE, fixed, -1, 0)
    },
  }
}
