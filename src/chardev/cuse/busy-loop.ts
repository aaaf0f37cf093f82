/**
 * Stays with programs that are busy: after an answer the next request is near, and a turn of the event loop costs more
 * than all the rest. For a few milliseconds it waits at the devices that were busy and at the interrupts by itself, in
 * the kernel, and before that, where it pays, it looks a few times without sleeping.
 *
 * An idle driver sleeps in the event loop; one that is busy all the time lets that have a turn every few milliseconds.
 */

import { availableParallelism } from 'node:os'
import { WaitSet } from '../../ffi/wait.ts'

/** An fd that becomes readable, and what is then to be done. */
export interface Waker {
  readonly fd: number
  serve(): void
}

/** A device: deals with at most so many of the requests that are there, and says whether there were any. */
export interface Busy {
  readonly fd: number
  serve(most: number): boolean
}

/** Devices and wakers that are waited at; others are the event loop's. */
const DEVICES_MAX = 32
const WAKERS_MAX = 32
/** What it waits for one event, and the longest stay. */
const SLEEP_MS = 2
const STAY_MS = 5
/** The clock is asked every so many turns: in some guests it costs as much as a request. */
const CLOCK = 8
/**
 * Looks without sleeping after the last request, where the program that makes the next one has a processor of its own:
 * about as long as it takes for that.
 */
const LOOKS = availableParallelism() > 1 ? 8 : 0

export class BusyLoop {
  readonly #poll: () => boolean
  readonly #devices: Busy[] = []
  readonly #set = new WaitSet(DEVICES_MAX + WAKERS_MAX)
  #wakers: readonly Waker[] = []
  #running = false
  #resume = false

  /** `poll` looks into the rings; true when something was there. */
  constructor(poll: () => boolean) {
    this.#poll = poll
  }

  /** Where interrupts come from; the list becomes empty when the device is let go of. Without any it never sleeps. */
  setWakers(wakers: readonly Waker[]): void {
    this.#wakers = wakers
  }

  /** A device has had a request, or an answer: it will have another request soon. */
  touch(device: Busy): void {
    if (this.#devices.length < DEVICES_MAX && !this.#devices.includes(device)) this.#devices.push(device)
  }

  forget(device: Busy): void {
    const at = this.#devices.indexOf(device)
    if (at >= 0) this.#devices.splice(at, 1)
  }

  /** Stays until nothing comes any more. Called from the event loop, after something has happened. */
  run(): void {
    if (this.#running || this.#resume || this.#devices.length === 0) return
    this.#running = true
    const start = performance.now()
    let looks = 0
    for (let turn = 1; ; turn++) {
      const sleeps = looks >= LOOKS
      if (sleeps && this.#wakers.length === 0) break
      const some = this.#turn(sleeps)
      if (this.#devices.length === 0 || (sleeps && !some)) break
      looks = some ? 0 : looks + 1
      if (turn % CLOCK > 0 || performance.now() - start < STAY_MS) continue
      this.#later()
      break
    }
    if (!this.#resume) this.#devices.length = 0
    this.#running = false
  }

  /** Waits, deals with what there is; false when there was nothing. */
  #turn(sleeps: boolean): boolean {
    const devices = this.#devices.length
    // An interrupt is looked for only by who sleeps: the others look into the rings.
    const wakers = sleeps ? Math.min(this.#wakers.length, WAKERS_MAX) : 0
    for (let i = 0; i < devices; i++) this.#set.set(i, this.#devices[i]!.fd)
    for (let i = 0; i < wakers; i++) this.#set.set(devices + i, this.#wakers[i]!.fd)
    const ready = this.#set.wait(devices + wakers, sleeps ? SLEEP_MS : 0) > 0
    // What came from the host is handed on first: to acknowledge an interrupt takes several accesses to the device.
    const some = this.#poll()
    if (!ready) return some
    // Backwards: one that is dealt with may go.
    for (let i = devices - 1; i >= 0; i--) if (this.#set.ready(i)) this.#devices[i]?.serve(1)
    for (let i = wakers - 1; i >= 0; i--) if (this.#set.ready(devices + i)) this.#wakers[i]?.serve()
    return true
  }

  /** The event loop has its turn first. */
  #later(): void {
    this.#resume = true
    setImmediate(() => {
      this.#resume = false
      this.run()
    })
  }
}
