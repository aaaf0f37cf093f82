/**
 * The one door to native code: declares functions of the C library with koffi and turns failures into errors.
 *
 * Every file of `ffi/` takes its functions from here; nothing outside `ffi/` knows koffi. A later Node whose own FFI is
 * good enough replaces this file and no other.
 */

import koffi from 'koffi'
import { VmchannelError, type ErrorCode } from '../errors.ts'

// null: the process image itself, so that glibc and musl both do.
const libc = koffi.load(null)

/**
 * A C function; koffi passes a Uint8Array as a pointer to its first byte, null as NULL, BigInt or number as integer.
 */
export type NativeFunction = (...args: (number | bigint | string | Uint8Array | null)[]) => number

/** Declares a function, e.g. `declare('int64_t write(int fd, const void *buf, size_t len)')`. */
export function declare(signature: string): NativeFunction {
  return libc.func(signature)
}

/** errno of the last call; read it right after the call, before anything else runs. */
export function errno(): number {
  return koffi.errno()
}

const errnoNames = new Map<number, string>(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]))

/** "ENOENT" for 2; the number itself where the name is unknown. */
export function errnoName(number: number): string {
  return errnoNames.get(number) ?? `errno ${number}`
}

const E: Record<string, number> = koffi.os.errno
export const EAGAIN: number = E['EAGAIN'] ?? 11
export const EINTR: number = E['EINTR'] ?? 4
export const EPIPE: number = E['EPIPE'] ?? 32
export const ENOENT: number = E['ENOENT'] ?? 2
export const EINPROGRESS: number = E['EINPROGRESS'] ?? 115
export const ECONNREFUSED: number = E['ECONNREFUSED'] ?? 111
export const EADDRINUSE: number = E['EADDRINUSE'] ?? 98
export const ENOBUFS: number = E['ENOBUFS'] ?? 105
export const ETOOMANYREFS = 109
export const ENOTSOCK: number = E['ENOTSOCK'] ?? 88
export const ECONNRESET: number = E['ECONNRESET'] ?? 104

/** The error for a failed system call on `thing`; call it at once, it reads errno. */
export function systemError(
  syscall: string,
  thing: string,
  code: ErrorCode = 'ERR_VMCHANNEL_INTERNAL',
): VmchannelError {
  const name = errnoName(errno())
  return new VmchannelError(code, `${thing}: ${syscall} failed with ${name}`, { errno: name, syscall })
}

/** Passes a result through, or throws with errno where it is -1. */
export function check(result: number, syscall: string, thing: string, code?: ErrorCode): number {
  if (result === -1) throw systemError(syscall, thing, code)
  return result
}

const closeFunction = declare('int close(int fd)')

/** Closes a file descriptor; errors are of no use to anybody here. */
export function closeFd(fd: number): void {
  closeFunction(fd)
}

/** Views native memory as bytes. The view keeps nothing alive: its owner must outlive it (see mmap.ts). */
export function viewNative(address: bigint, len: number): ArrayBuffer {
  return koffi.view(address, len)
}

/** Address of the first byte of a buffer that lives outside the garbage collector's reach (native or pinned memory). */
export function addressOf(bytes: Uint8Array): bigint {
  return koffi.address(bytes)
}
