/** The system calls of mapped memory, declared once for mmap.ts, device-region.ts and hugepage.ts. */

import { declare, type NativeFunction } from './libc.ts'

export const PROT_READ = 1
export const PROT_READ_WRITE = 3
export const MAP_SHARED = 0x01
export const MAP_PRIVATE = 0x02
export const MAP_FIXED = 0x10
export const MAP_ANONYMOUS = 0x20
export const MAP_NORESERVE = 0x4000
export const MAP_POPULATE = 0x8000
export const MADV_DONTFORK = 10
export const MADV_DONTDUMP = 16

// Addresses as integers: they fit (47 or 48 bits), and MAP_FAILED becomes -1.
export const mmapFunction: NativeFunction = declare(
  'int64_t mmap(int64_t address, size_t len, int prot, int flags, int fd, int64_t offset)',
)
export const madviseFunction: NativeFunction = declare('int madvise(int64_t address, size_t len, int advice)')
