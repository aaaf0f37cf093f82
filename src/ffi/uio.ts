/**
 * A PCI function under uio_pci_generic, without exceptions or allocations: its interrupt, its configuration space, and
 * the lock that keeps a second driver away. Called by driver/attach/uio.
 */

import { declare, EAGAIN, EINTR, errno } from './libc.ts'

const readFunction = declare('int64_t read(int fd, void *data, size_t len)')
const preadFunction = declare('int64_t pread(int fd, void *data, size_t len, int64_t offset)')
const pwriteFunction = declare('int64_t pwrite(int fd, const void *data, size_t len, int64_t offset)')
const flockFunction = declare('int flock(int fd, int operation)')

const LOCK_EX = 2
const LOCK_NB = 4

// Backing stores outside V8's heap: they do not move while the kernel writes to them.
const counter = new Uint8Array(new ArrayBuffer(128))

/** Takes the interrupt's count: true when there was one, false when not, undefined when the function is gone. */
export function takeUioInterrupt(fd: number): boolean | undefined {
  for (;;) {
    if (readFunction(fd, counter, 4) === 4) return true
    const error = errno()
    if (error === EAGAIN) return false
    if (error !== EINTR) return undefined
  }
}

/** Reads at a place of a file; bytes read, -1 for an error. */
export function readAt(fd: number, out: Uint8Array, offset: number): number {
  return preadFunction(fd, out, out.length, offset)
}

export function writeAt(fd: number, data: Uint8Array, offset: number): number {
  return pwriteFunction(fd, data, data.length, offset)
}

/** Locks an open file for this process, until it is closed; false when somebody else has it. */
export function lockFile(fd: number): boolean {
  return flockFunction(fd, LOCK_EX | LOCK_NB) === 0
}
