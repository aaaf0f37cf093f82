/**
 * The work that the queues of one driver may do before the event loop has its turn, counted in what is looked at: a
 * device decides how much there is of that, not how much is good for. All queues share it, however many there are. When
 * it is used up they wait, in the order in which they ask, and an interrupt does not go round that.
 *
 * It is filled up by the turn that somebody has waited for, and not before: as long as little is done nobody waits.
 */

/** In bytes moved: two milliseconds or so, ten times that in an emulated guest. */
const TURN_COST = 8 << 20
/** What other things cost, in bytes that could be moved in the same time. */
export const ENTRY_COST = 4096
/** A control message may make and remove a device node. */
export const CONTROL_COST: number = TURN_COST / 64
/** Looks of a `Patience` between two looks at the clock. */
export const LOOKS_COST: number = 16 << 10

/** Two queues are set up: memory for both, and some dozen accesses to registers. */
export const PAIR_COST: number = TURN_COST / 8

/** One queue's work that waits for its turn. */
export interface Waiting {
  waits: boolean
  run(): void
}

export class Turn {
  readonly #defer: (fn: () => void) => void
  #left = TURN_COST
  readonly #waiting: Waiting[] = []
  #asked = false

  /** `defer` runs a function after other events have had theirs. */
  constructor(defer: (fn: () => void) => void) {
    this.#defer = defer
  }

  /** Whether what is to be done has to wait. */
  get over(): boolean {
    return this.#left <= 0
  }

  spend(cost: number): void {
    this.#left -= cost
  }

  /** Runs it in the next turn: asked for any number of times, done once. */
  wait(one: Waiting): void {
    if (one.waits) return
    one.waits = true
    this.#waiting.push(one)
    this.#ask()
  }

  /** The queues are gone: nobody waits any more. */
  clear(): void {
    for (const one of this.#waiting) one.waits = false
    this.#waiting.length = 0
  }

  #ask(): void {
    if (this.#asked) return
    this.#asked = true
    this.#defer(() => this.#next())
  }

  #next(): void {
    this.#asked = false
    this.#left = TURN_COST
    try {
      // Who asks for another turn in its own is behind those who have not had theirs.
      for (let n = this.#waiting.length; n > 0 && this.#left > 0; n--) {
        const one = this.#waiting.shift()
        if (!one) break
        one.waits = false
        one.run()
      }
    } finally {
      if (this.#waiting.length > 0) this.#ask()
    }
  }
}

/**
 * Work in steps, as many in each turn as that goes; `done` when all are, or it was abandoned. Rejects with what a step
 * throws.
 */
export class TurnSteps {
  readonly done: Promise<void>
  readonly #turn: Turn
  readonly #steps: Iterator<undefined, void>
  readonly #cost: number
  readonly #waiting: Waiting = { waits: false, run: () => this.#run() }
  #settle: { resolve: () => void; reject: (error: unknown) => void } | undefined

  constructor(turn: Turn, steps: Iterator<undefined, void>, cost: number) {
    this.#turn = turn
    this.#steps = steps
    this.#cost = cost
    this.done = new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
    turn.wait(this.#waiting)
  }

  /** No further step. */
  abandon(): void {
    this.#settle?.resolve()
    this.#settle = undefined
  }

  #run(): void {
    try {
      while (this.#settle && !this.#turn.over) {
        this.#turn.spend(this.#cost)
        if (this.#steps.next().done) return this.abandon()
      }
    } catch (error) {
      this.#settle?.reject(error)
      this.#settle = undefined
    }
    if (this.#settle) this.#turn.wait(this.#waiting)
  }
}
