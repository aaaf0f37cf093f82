/**
 * The messages of CUSE (character devices in user space; FUSE protocol 7.x): numbers, offsets, replies. All
 * little-endian words of the machine's own order; `unique` counts up by twos and fits a double for ever.
 */

export const FUSE_OPEN = 14
export const FUSE_READ = 15
export const FUSE_WRITE = 16
export const FUSE_RELEASE = 18
export const FUSE_INTERRUPT = 36
export const FUSE_IOCTL = 39
export const FUSE_POLL = 40
export const CUSE_INIT = 4096

/** Length of fuse_in_header, and with it where a request's own part starts. */
export const IN_HEADER = 40
export const OUT_HEADER = 16
/** Where the bytes of a WRITE start: fuse_in_header and fuse_write_in. */
export const WRITE_DATA = 80

/** Offsets in 32-bit words of fuse_in_header. */
export const W_LEN = 0
export const W_OPCODE = 1
export const W_UNIQUE = 2

// Of fuse_open_in
export const W_OPEN_FLAGS = 10
// Of fuse_read_in and fuse_write_in
export const W_FH = 10
export const W_OFFSET = 12
export const W_SIZE = 14
export const W_FILE_FLAGS = 18
// Of fuse_interrupt_in
export const W_VICTIM = 10
// Of fuse_poll_in
export const W_POLL_HANDLE = 12
export const W_POLL_FLAGS = 14
export const W_POLL_EVENTS = 15
export const FUSE_POLL_SCHEDULE_NOTIFY = 1
// Of cuse_init_in
export const W_INIT_MAJOR = 10
export const W_INIT_MINOR = 11

/** The kernel moves no more in one request: 32 pages. */
export const REQUEST_MAX = 131072

/** Errors that we answer with (asm-generic/errno). */
export const EINTR = 4
export const EIO = 5
export const EAGAIN = 11
export const ENOMEM = 12
export const EBUSY = 16
export const ENODEV = 19
export const ENOTTY = 25
export const ENOSYS = 38

export const O_NONBLOCK = 0o4000

export const POLLIN = 0x1
export const POLLOUT = 0x4
export const POLLERR = 0x8
export const POLLHUP = 0x10
export const POLLRDNORM = 0x40
export const POLLWRNORM = 0x100

/** FUSE_NOTIFY_POLL, in the place of an error. */
export const NOTIFY_POLL = 1

const FUSE_MAJOR = 7
/** Oldest minor that has what CUSE needs, and the newest that was tried. */
const MINOR_MIN = 12
const MINOR_MAX = 31
const INIT_OUT = 72

export interface CuseInit {
  /** Of the kernel. */
  major: number
  minor: number
}

export interface CuseIdentity {
  /** Path below /dev. */
  name: string
  /** Device number; major 0: the kernel chooses. */
  major: number
  minor: number
}

/** Whether we speak what the kernel speaks. */
export function speaks({ major, minor }: CuseInit): boolean {
  return major === FUSE_MAJOR && minor >= MINOR_MIN
}

/** cuse_init_out, and the name behind it. */
export function encodeInit(kernel: CuseInit, { name, major, minor }: CuseIdentity): Uint8Array {
  const info = new TextEncoder().encode(`DEVNAME=${name}\0`)
  const bytes = new Uint8Array(new ArrayBuffer(INIT_OUT + info.length))
  const view = new DataView(bytes.buffer)
  view.setUint32(0, FUSE_MAJOR, true)
  view.setUint32(4, Math.min(kernel.minor, MINOR_MAX), true)
  view.setUint32(16, REQUEST_MAX, true)
  view.setUint32(20, REQUEST_MAX, true)
  view.setUint32(24, major, true)
  view.setUint32(28, minor, true)
  bytes.set(info, INIT_OUT)
  return bytes
}
