/** Which of many descriptors are readable now, by one poll(2). Called by the keeper. */

import { declare } from './libc.ts'

const pollFunction = declare('int poll(void *fds, unsigned long count, int timeout)')
const ENTRY = 8
const POLLIN = 0x1

/** Those that a read, or an accept, would find something at, an end included. */
export function pollReadable(fds: readonly number[]): number[] {
  if (fds.length === 0) return []
  const bytes = new Uint8Array(new ArrayBuffer(Math.max(128, fds.length * ENTRY)))
  const view = new DataView(bytes.buffer)
  for (const [i, fd] of fds.entries()) {
    view.setInt32(i * ENTRY, fd, true)
    view.setInt16(i * ENTRY + 4, POLLIN, true)
  }
  if (pollFunction(bytes, fds.length, 0) <= 0) return []
  return fds.filter((_, i) => view.getInt16(i * ENTRY + 6, true) !== 0)
}
