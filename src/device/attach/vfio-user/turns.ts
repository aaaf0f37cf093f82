/**
 * Shares the event loop between the VMMs of this process: how long one may be served at a stretch, and in which order
 * those are served that have more.
 *
 * A message may cost a microsecond or a millisecond (one that rebinds the rings of a thousand queues), and a socket
 * holds hundreds. So a turn is bounded by time: after each message its stream asks whether the turn is over. What is
 * not handled then waits in the socket. Whoever has work left gets its next turn after all others that wait.
 */

/** One VMM at a stretch. */
const SLICE_MS = 2
/** All VMMs together, in one turn of the event loop: ports, timers and the control socket come after that. */
const TURN_MS = 8
/** Turns shorter than this together need no new count. */
const NOTABLE_MS = 1

export interface Worker {
  /** Works until nothing is left, or until `turns.over`; true where something is left. */
  work(): boolean
}

export class Turns {
  readonly #now: () => number
  readonly #waiting: Worker[] = []
  /** Of this turn of the event loop. */
  #spent = 0
  /** When the slice under way ends. */
  #end = 0
  #scheduled = false

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Whether the worker under way has had its time: it is to return as soon as it can. */
  get over(): boolean {
    return this.#now() >= this.#end
  }

  /** Lets `worker` work: now, or where others wait already or time is up, after them. */
  take(worker: Worker): void {
    if (this.#waiting.length === 0 && this.#spent < TURN_MS) this.#slice(worker)
    else if (!this.#waiting.includes(worker)) this.#waiting.push(worker)
    if (this.#waiting.length > 0 || this.#spent >= NOTABLE_MS) this.#schedule()
  }

  #slice(worker: Worker): void {
    const start = this.#now()
    this.#end = start + SLICE_MS
    const more = worker.work()
    this.#spent += this.#now() - start
    if (more) this.#waiting.push(worker)
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#spent = 0
      for (let i = this.#waiting.length; i > 0 && this.#spent < TURN_MS; i--) this.#slice(this.#waiting.shift()!)
      if (this.#waiting.length > 0 || this.#spent >= NOTABLE_MS) this.#schedule()
    })
  }
}

/** Of this process: it has one event loop. */
export const TURNS: Turns = new Turns()
