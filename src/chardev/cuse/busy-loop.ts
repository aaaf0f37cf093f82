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
/** What it waits for one event. */
const SLEEP_MS = 2
/**
 * Looks without sleeping after the last request, where the program that makes the next one has a processor of its own:
 * as long as it takes for that, and for an answer of the host.
 */
const LOOKS = availableParallelism() > 1 ? 24 : 0
/**
 * Devices that are looked at by asking them for a request, which is one system call for a hit; more share a poll(2).
 */
const ASKED_MAX = 4
/**
 * The longest stay, a few milliseconds: so many looks, where one that finds something counts for more. The clock is
 * read only by who sleeps, for whom it makes no difference: in some guests that is a trip to the VMM, and has to wait
 * while the VMM is at work.
 */
const STAY_LOOKS = 1000
const SERVE_COST = 12
/** More at a time than this many count for more. */
const SERVE_MANY = 4
const STAY_MS = 5

export class BusyLoop {
  readonly #poll: () => boolean
  readonly #rest: () => void
  readonly #over: () => boolean
  readonly #devices: Busy[] = []
  readonly #set = new WaitSet(DEVICES_MAX + WAKERS_MAX)
  #wakers: readonly Waker[] = []
  #running = false
  #resume = false

  /**
   * `poll` looks into the rings, true when something was there; `rest` is told that nobody looks for a while; `over`
   * says that the driver has done what it may do in one turn of the event loop.
   */
  constructor(poll: () => boolean, rest: () => void = () => {}, over: () => boolean = () => false) {
    this.#poll = poll
    this.#rest = rest
    this.#over = over
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
    for (let left = STAY_LOOKS; left > 0;) {
      const sleeps = looks >= LOOKS
      if (sleeps && this.#wakers.length === 0) break
      if (sleeps && looks === LOOKS) this.#rest()
      const served = sleeps ? this.#wait(SLEEP_MS) : this.#look()
      if (this.#devices.length === 0 || (sleeps && served === 0)) break
      looks = served > 0 ? 0 : looks + 1
      left -= served > 0 ? SERVE_COST * Math.max(1, served / SERVE_MANY) : 1
      if (this.#over()) left = 0
      if (sleeps && performance.now() - start > STAY_MS) left = 0
      if (left <= 0) this.#later()
    }
    this.#rest()
    if (!this.#resume) this.#devices.length = 0
    this.#running = false
  }

  /** Deals with what there is now; returns with how much. An interrupt is for who sleeps: this looks into the rings. */
  #look(): number {
    if (this.#devices.length > ASKED_MAX) return this.#wait(0)
    let served = this.#poll() ? 1 : 0
    // Backwards: one that is dealt with may go.
    for (let i = this.#devices.length - 1; i >= 0; i--) if (this.#devices[i]?.serve(1)) served++
    return served
  }

  /** Waits at most so long, deals with what there is then; returns with how much. */
  #wait(ms: number): number {
    const devices = this.#devices.length
    const wakers = ms > 0 ? Math.min(this.#wakers.length, WAKERS_MAX) : 0
    for (let i = 0; i < devices; i++) this.#set.set(i, this.#devices[i]!.fd)
    for (let i = 0; i < wakers; i++) this.#set.set(devices + i, this.#wakers[i]!.fd)
    const ready = this.#set.wait(devices + wakers, ms) > 0
    // What came from the host is handed on first: to acknowledge an interrupt takes several accesses to the device.
    let served = this.#poll() ? 1 : 0
    if (!ready) return served
    for (let i = devices - 1; i >= 0; i--)
      if (this.#set.ready(i)) {
        served++
        this.#devices[i]?.serve(1)
      }
    for (let i = wakers - 1; i >= 0; i--)
      if (this.#set.ready(devices + i)) {
        served++
        this.#wakers[i]?.serve()
      }
    return served
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
