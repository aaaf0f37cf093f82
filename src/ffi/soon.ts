/**
 * Calls a function some ten microseconds later (timerfd): long enough that something has come together meanwhile, and
 * much shorter than the millisecond of the event loop's own timers. The loop sleeps until then and hears all else. One
 * timer for the whole process, set only while somebody waits. Used by the device, through the VM that holds it; a process
 * that has used it ends when it is told to.
 */

import { addressOf, check, declare } from './libc.ts'
import { Watch } from './poll.ts'

const timerfdCreate = declare('int timerfd_create(int clock, int flags)')
const timerfdSettime = declare('int timerfd_settime(int fd, int flags, uintptr_t next, uintptr_t last)')

const CLOCK_MONOTONIC = 1
const TFD_NONBLOCK = 0o4000
const TFD_CLOEXEC = 0o2000000
/** So that with the 25 it takes to be woken a guest under TCG has written ten to twenty messages. */
const SOON_NS = 35_000n
/** struct itimerspec: interval, then the first time, in seconds and nanoseconds each. */
const ITIMERSPEC_SIZE = 32
const FIRST_NS = 24

class Alarm {
  readonly #timer = check(timerfdCreate(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), 'timerfd_create', 'timer')
  readonly #watch = new Watch(this.#timer, () => this.#ring())
  /** Two of them, in a moment and never: held here, since the kernel is given only their addresses. */
  readonly #times = new Uint8Array(new ArrayBuffer(2 * ITIMERSPEC_SIZE))
  readonly #moment = Number(addressOf(this.#times))
  readonly #never = this.#moment + ITIMERSPEC_SIZE
  #ringing = false
  #waiting: (() => void)[] = []
  #due: (() => void)[] = []

  constructor() {
    new DataView(this.#times.buffer).setBigInt64(FIRST_NS, SOON_NS, true)
    this.#watch.want(true, false)
  }

  call(fn: () => void): void {
    if (this.#waiting.push(fn) === 1 && !this.#ringing) timerfdSettime(this.#timer, 0, this.#moment, 0)
  }

  /** A timer that is set again, or stopped, is not readable any more: nothing has to be read from it. */
  #ring(): void {
    const due = this.#waiting
    this.#waiting = this.#due
    this.#due = due
    this.#ringing = true
    try {
      for (const fn of due) fn()
    } finally {
      this.#ringing = false
      due.length = 0
      timerfdSettime(this.#timer, 0, this.#waiting.length > 0 ? this.#moment : this.#never, 0)
    }
  }
}

let alarm: Alarm | undefined

/** Calls `fn` once, from the event loop. Where the process has no descriptor left for a timer: at its next turn. */
export function soon(fn: () => void): void {
  try {
    alarm ??= new Alarm()
  } catch {
    setImmediate(fn)
    return
  }
  alarm.call(fn)
}
