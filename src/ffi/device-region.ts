/**
 * Memory that is shared with a device: its registers (a BAR behind a file), or anonymous pages that it may reach.
 * Called by the attachments for UIO and VFIO.
 */

import { systemError, viewNative } from './libc.ts'
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
