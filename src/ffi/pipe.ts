/** pipe2(2): Node makes pipes for its children only. Called by the QEMU wrapper, which hands one end to QEMU. */

import { check, declare } from './libc.ts'

const pipe2Function = declare('int pipe2(int *fds, int flags)')

const O_CLOEXEC = 0o2000000

/** A pipe; neither end goes to programs that this process starts, unless they are told to take it. */
export function makePipe(): { read: number; write: number } {
  const fds = new Int32Array(new ArrayBuffer(8))
  check(pipe2Function(new Uint8Array(fds.buffer), O_CLOEXEC), 'pipe2', 'pipe')
  return { read: fds[0]!, write: fds[1]! }
}
