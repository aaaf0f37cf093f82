/**
 * Whether sockets of a device process have something that it should have read: of each it is seen whether it is
 * readable at two looks in a row. One that stays so, because a peer is held up on purpose, counts once in half a
 * minute. Used by heartbeat.ts.
 */

import { pollReadable } from '../ffi/poll-many.ts'

/** Looks that one which was reported is passed over, if it stays readable. */
const PAUSE = 30

export class UnreadWork {
  /** Looks in a row at which a socket was readable. */
  #counts = new Map<number, number>()

  look(sockets: ReadonlySet<number>): boolean {
    const counts = new Map<number, number>()
    let found = false
    for (const fd of pollReadable([...sockets])) {
      const count = (this.#counts.get(fd) ?? 0) + 1
      if (count === 2) found = true
      counts.set(fd, count > PAUSE ? 1 : count)
    }
    this.#counts = counts
    return found
  }
}
