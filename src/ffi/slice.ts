/**
 * Short time slices for the thread that calls (sched_setattr(2), Linux 6.12 and later): it may then run as soon as it is
 * woken, before whoever has the processor has used up its own longer slice. It gets no more of the processor than
 * before, and needs no right for it; older kernels take no notice. Called once by the device process, whose guests wait
 * for each of its wakings.
 */

import { declare, type NativeFunction } from './libc.ts'

const syscall: NativeFunction = declare(
  'int64_t syscall(int64_t n, int64_t pid, void *attr, int64_t size, int64_t flags)',
)

const ARM = process.arch === 'arm64'
const SYS_SCHED_SETATTR = ARM ? 274 : 314
const SYS_SCHED_GETATTR = ARM ? 275 : 315
/** struct sched_attr of the first version: size at 0, policy at 4, nice at 16, runtime at 24. */
const ATTR_SIZE = 48
const POLICY = 4
const RUNTIME = 24
const SCHED_OTHER = 0

/** Asks for slices of `us` microseconds; whether the kernel has that. */
export function shortSlices(us: number): boolean {
  const attr = new Uint8Array(new ArrayBuffer(ATTR_SIZE))
  const view = new DataView(attr.buffer)
  if (syscall(SYS_SCHED_GETATTR, 0, attr, ATTR_SIZE, 0) !== 0) return false
  // Anything else was chosen by somebody who knows why. No slice of its own: a kernel that has none.
  if (view.getUint32(POLICY, true) !== SCHED_OTHER || view.getBigUint64(RUNTIME, true) === 0n) return false
  view.setBigUint64(RUNTIME, BigInt(us) * 1000n, true)
  return syscall(SYS_SCHED_SETATTR, 0, attr, 0, 0) === 0
}
