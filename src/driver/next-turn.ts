/** Another turn of a queue after other events have had theirs: asked for any number of times, taken once. */

import type { QueueOwner } from './port-settings.ts'

export class NextTurn {
  readonly #owner: QueueOwner
  readonly #run: () => void
  #due = false

  constructor(owner: QueueOwner, run: () => void) {
    this.#owner = owner
    this.#run = run
  }

  ask(): void {
    if (this.#due) return
    this.#due = true
    this.#owner.defer(() => {
      this.#due = false
      this.#run()
    })
  }
}
