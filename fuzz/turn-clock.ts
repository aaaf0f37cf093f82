/**
 * How long an episode keeps the event loop at a stretch: from one turn, or one step of it (see Random.step), to the
 * next. Counted is processor time where that is less than the time that passed: the machine has other work as well.
 */

export class TurnClock {
  /** The longest, in ms; and in which step it was. */
  longest = 0
  step = 0
  #steps = 0
  #wall = 0
  #cpu = 0
  #running = false

  start(): void {
    this.#running = true
    this.#mark()
    const turn = (): void => {
      if (!this.#running) return
      this.#look()
      setImmediate(turn)
    }
    setImmediate(turn)
  }

  /** A step of the episode begins: it is a stretch of its own. */
  readonly onStep = (): void => {
    this.#look()
    this.#steps++
  }

  stop(): void {
    this.#look()
    this.#running = false
  }

  #look(): void {
    const wall = performance.now() - this.#wall
    // The processor is asked only where it can matter.
    if (wall > this.longest) {
      const took = Math.min(wall, processorMs() - this.#cpu)
      if (took > this.longest) {
        this.longest = took
        this.step = this.#steps
      }
    }
    this.#mark()
  }

  #mark(): void {
    this.#wall = performance.now()
    this.#cpu = processorMs()
  }
}

function processorMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}
