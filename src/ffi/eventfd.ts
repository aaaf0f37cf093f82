/**
 * eventfd(2): how an interrupt reaches a VMM. Called by the interrupt lines of an attachment and by tests.
 */

import { readlinkSync } from 'node:fs'
import { check, declare } from './libc.ts'

const eventfdFunction = declare('int eventfd(unsigned int value, int flags)')
const eventfdWrite = declare('int eventfd_write(int fd, uint64_t value)')
const readFunction = declare('int64_t read(int fd, void *data, size_t len)')
const fcntlFunction = declare('int fcntl(int fd, int command, int64_t argument)')

const EFD_NONBLOCK = 0o4000
const EFD_CLOEXEC = 0o2000000
const F_GETFL = 3
const F_SETFL = 4
const O_NONBLOCK = 0o4000

const counter = new Uint8Array(new ArrayBuffer(128))
const counterView = new DataView(counter.buffer)

/** Makes an eventfd, non-blocking and close-on-exec. */
export function createEventfd(): number {
  return check(eventfdFunction(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', 'eventfd')
}

/** Adds 1. A full counter is as good as a signal: the result does not matter. */
export function signalEventfd(fd: number): void {
  eventfdWrite(fd, 1)
}

/** Reads and clears the counter; 0 where nothing was there. */
export function drainEventfd(fd: number): number {
  return readFunction(fd, counter, 8) === 8 ? Number(counterView.getBigUint64(0, true)) : 0
}

/**
 * Takes over a descriptor that somebody else sent as an eventfd: true when it is one, made non-blocking, so that a
 * write can never stop this process. Anything else (a pipe, a socket) could.
 */
export function adoptEventfd(fd: number): boolean {
  try {
    if (!readlinkSync(`/proc/self/fd/${fd}`).includes('[eventfd')) return false
  } catch {
    // No /proc in this sandbox: a VM without interrupts would be worse than believing the VMM.
  }
  const flags = fcntlFunction(fd, F_GETFL, 0)
  if (flags === -1) return false
  return (flags & O_NONBLOCK) !== 0 || fcntlFunction(fd, F_SETFL, flags | O_NONBLOCK) === 0
}
