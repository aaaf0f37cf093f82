/**
 * Whether a device process still does its work, judged once a second from what can be seen without waking it; only
 * where that looks as if it might hang is it asked, and it is given up when it has not answered for several looks in a
 * row. Fed by heartbeat.ts.
 *
 * Looks are counted, not seconds: a supervisor that did not run itself (stopped, a machine that slept, both in a frozen
 * cgroup) has seen nothing, and nothing is concluded from that.
 */

export interface Look {
  /** The supervisor has not run in time for this look: what it sees may be its own doing. */
  late: boolean
  /** A debugger or a tracer has the process. */
  traced: boolean
  /** State of its main thread as in /proc: S sleeps, R runs, D waits for a device, T is stopped. */
  state: string
  /** Something that it should have read was unread at this look and the one before. */
  unread: boolean
}

export type Verdict = 'fine' | 'ask' | 'hangs'

/** Looks without an answer, and the same for a process that is still on its way to being ready. */
const LOOKS = 5
const STARTING_LOOKS = 30

export class Pulse {
  #unanswered = 0
  #ready = false
  /** Who is started is asked at once. */
  #asked = true

  answered(): void {
    this.#asked = false
  }

  ready(): void {
    this.#ready = true
  }

  look({ late, traced, state, unread }: Look): Verdict {
    if (late || traced) {
      this.#unanswered = 0
      return 'fine'
    }
    if (this.#asked) {
      const looks = this.#ready || state === 'T' ? LOOKS : STARTING_LOOKS
      return ++this.#unanswered >= looks ? 'hangs' : 'fine'
    }
    if (state === 'S' && !unread) return 'fine'
    this.#asked = true
    this.#unanswered = 0
    return 'ask'
  }
}
