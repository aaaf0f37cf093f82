/**
 * How much one turn of the event loop does for guests, and what waits for the next turn.
 *
 * A guest decides how many descriptors a chain has, how many chains wait, how often it notifies, and on how many queues
 * at once. So everything that is looked at is charged here, in units of some ten nanoseconds, and who has used up a
 * budget goes on in a later turn: a queue after its quantum, a device after its share, the process after the turn.
 * Queues that wait are served round robin, devices in turn, queues of a device in turn; a notification of a queue that
 * waits changes nothing. One scheduler serves all devices of an event loop. Used by console.ts and what it is made of.
 */

/**
 * What things cost, in units: a chain besides its descriptors, a system call with what comes after it, an event or log
 * line.
 */
const CHAIN_COST = 10
const CALL_COST = 300
const BYTES_PER_UNIT = 32
export const EVENT_COST = 1000
/** One queue goes on for so long, about 1.3 ms. */
export const QUANTUM: number = 1 << 17
/** One device in a turn of the event loop, and all of them: about 2.5 and 5 ms. VMMs' messages have as much again. */
const DEVICE_SHARE = 1 << 18
const TURN = 1 << 19
/** How often the clock is asked whether the units are right, and what it has to say for that. */
const CHECK = 1 << 15
const TURN_MS = 6

/** What a look at a ring has cost, with the call that moved `bytes`. */
export function costOf(looked: number, chains: number, bytes: number): number {
  return CALL_COST + looked + chains * CHAIN_COST + bytes / BYTES_PER_UNIT
}

export class Scheduler {
  /** Runs a function after other events had their turn. */
  readonly defer: (fn: () => void) => void
  /** Turns that were counted; a turn with little work is not. */
  turn = 0
  #spent = 0
  #checkAt = CHECK
  #start = 0
  #scheduled = false
  /** Devices with queues that wait, in order. */
  readonly #waiting: DeviceWork[] = []

  constructor(defer: (fn: () => void) => void) {
    this.defer = defer
  }

  /** Units that are left in this turn; none or fewer: it is over. */
  get left(): number {
    return TURN - this.#spent
  }

  charge(units: number): void {
    this.#spent += units
    if (this.#spent < this.#checkAt) return
    this.#checkAt = this.#spent + CHECK
    const now = performance.now()
    if (!this.#scheduled) {
      this.#start = now
      this.#schedule()
    } else if (now - this.#start > TURN_MS) this.#spent = Math.max(TURN, this.#spent)
  }

  /** A device has a queue that waits. */
  wait(device: DeviceWork): void {
    if (device.listed) return
    device.listed = true
    this.#waiting.push(device)
    if (this.#scheduled) return
    this.#start = performance.now()
    this.#schedule()
  }

  #schedule(): void {
    this.#scheduled = true
    this.defer(() => this.#next())
  }

  /** A new turn: first those who wait, as long as it is not used up by them. */
  #next(): void {
    this.#scheduled = false
    this.#spent = 0
    this.#checkAt = CHECK
    this.turn++
    const waiting = this.#waiting
    // Devices that have had their share, one after the other: when all have, that is it.
    let done = 0
    while (waiting.length > done && this.left > 0) {
      const device = waiting.shift()!
      try {
        if (device.left <= 0) done++
        else {
          done = 0
          device.serveNext()
        }
      } finally {
        device.listed = device.waits
        if (device.listed) waiting.push(device)
      }
    }
    if (waiting.length > 0 && !this.#scheduled) {
      this.#start = performance.now()
      this.#schedule()
    }
  }
}

/** The work of one device: what it has used up of this turn, and which of its queues wait. */
export class DeviceWork {
  readonly #scheduler: Scheduler
  readonly #serve: (queue: number) => void
  /** For the scheduler: it is among those that wait. */
  listed = false
  #turn = 0
  #spent = 0
  /** Queues that wait, in order: a ring with room for all, since each is in it once. */
  readonly #order: Uint16Array
  readonly #isDeferred: Uint8Array
  #first = 0
  #count = 0

  constructor(scheduler: Scheduler, queues: number, serve: (queue: number) => void) {
    this.#scheduler = scheduler
    this.#serve = serve
    this.#order = new Uint16Array(queues)
    this.#isDeferred = new Uint8Array(queues)
  }

  get defer(): (fn: () => void) => void {
    return this.#scheduler.defer
  }

  /** Units that are left to this device in this turn; none or fewer: it has to wait. */
  get left(): number {
    const { turn, left } = this.#scheduler
    return Math.min(DEVICE_SHARE - (this.#turn === turn ? this.#spent : 0), left)
  }

  /** Units for one visit of a queue. */
  get quantum(): number {
    return Math.min(QUANTUM, this.left)
  }

  /** Something was done; returns what is left of `budget`, which was given before. */
  charge(units: number, budget: number): number {
    if (this.#turn === this.#scheduler.turn) this.#spent += units
    else {
      this.#turn = this.#scheduler.turn
      this.#spent = units
    }
    this.#scheduler.charge(units)
    return Math.min(budget - units, DEVICE_SHARE - this.#spent, this.#scheduler.left)
  }

  /** The queue goes on in a later turn. Until then a visit of it does nothing. */
  deferQueue(queue: number): void {
    if (this.#isDeferred[queue] === 1) return
    this.#isDeferred[queue] = 1
    this.#order[(this.#first + this.#count++) % this.#order.length] = queue
    if (this.#count === 1) this.#scheduler.wait(this)
  }

  isDeferred(queue: number): boolean {
    return this.#isDeferred[queue] === 1
  }

  // --- for the scheduler

  get waits(): boolean {
    return this.#count > 0
  }

  serveNext(): void {
    const queue = this.#order[this.#first]!
    this.#first = (this.#first + 1) % this.#order.length
    this.#count--
    this.#isDeferred[queue] = 0
    this.#serve(queue)
  }
}
