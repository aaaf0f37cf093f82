/** eventfd(2), where both ends are ours or the kernel's. Those of a VMM are in shared-eventfd.ts. */

import { check, declare, EINTR, errno } from './libc.ts'

const eventfdFunction = declare('int eventfd(unsigned int value, int flags)')
const eventfdWrite = declare('int eventfd_write(int fd, uint64_t value)')
const readFunction = declare('int64_t read(int fd, void *data, size_t len)')

const EFD_NONBLOCK = 0o4000
const EFD_CLOEXEC = 0o2000000

const counter = new Uint8Array(new ArrayBuffer(128))
const counterView = new DataView(counter.buffer)

/** Makes an eventfd, non-blocking and close-on-exec. */
export function createEventfd(): number {
  return check(eventfdFunction(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', 'eventfd')
}

/** Adds 1. A full counter is as good as a signal: the result does not matter. It waits where O_NONBLOCK is off. */
export function signalEventfd(fd: number): void {
  eventfdWrite(fd, 1)
}

/** Reads and clears the counter; 0 where nothing was there. */
export function drainEventfd(fd: number): number {
  for (;;) {
    if (readFunction(fd, counter, 8) === 8) return Number(counterView.getBigUint64(0, true))
    if (errno() !== EINTR) return 0
  }
}
