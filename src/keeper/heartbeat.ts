/**
 * Notices a device process that hangs: in an endless loop, stopped, in a system call that does not come back. Made by
 * the supervisor for each process; pulse.ts judges.
 *
 * It looks once a second at the process's state and at the sockets that the keeper holds copies of. An idle process is
 * not woken by that.
 */

import { readFileSync } from 'node:fs'
import { Pulse, type Verdict } from './pulse.ts'
import { UnreadWork } from './unread-work.ts'

const LOOK_MS = 1000
const LATE_MS = 2 * LOOK_MS

export interface HeartbeatOwner {
  /** Asks the process whether it is there; the answer is told by `answered`. */
  ask(): void
  /** It is not; `state` as in /proc/PID/stat, `since`: when it was last known to be there. */
  hangs(state: string, since: number): void
}

export class Heartbeat {
  readonly #pid: number
  readonly #sockets: ReadonlySet<number>
  readonly #owner: HeartbeatOwner
  readonly #pulse = new Pulse()
  readonly #unread = new UnreadWork()
  #timer: NodeJS.Timeout
  #last: number = performance.now()
  #answeredAt: number = performance.now()

  constructor(pid: number, sockets: ReadonlySet<number>, owner: HeartbeatOwner) {
    this.#pid = pid
    this.#sockets = sockets
    this.#owner = owner
    this.#timer = setTimeout(() => this.#look(), LOOK_MS)
  }

  answered(): void {
    this.#answeredAt = performance.now()
    this.#pulse.answered()
  }

  ready(): void {
    this.#pulse.ready()
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #look(): void {
    const now = performance.now()
    const late = now - this.#last > LATE_MS
    this.#last = now
    this.#timer = setTimeout(() => this.#look(), LOOK_MS)
    const state = stateOf(this.#pid)
    // Its end is told by its exit.
    if (state === undefined || state === 'Z' || state === 'X') return
    const unread = this.#unread.look(this.#sockets)
    const suspect = state !== 'S' || unread
    const verdict: Verdict = this.#pulse.look({ late, traced: suspect && isTraced(this.#pid), state, unread })
    if (verdict === 'ask') {
      this.#answeredAt = now
      this.#owner.ask()
    } else if (verdict === 'hangs') {
      this.stop()
      this.#owner.hangs(state, this.#answeredAt)
    }
  }
}

function stateOf(pid: number): string | undefined {
  const stat = read(`/proc/${pid}/stat`)
  // The name in brackets may have anything in it.
  return stat?.charAt(stat.lastIndexOf(')') + 2)
}

function isTraced(pid: number): boolean {
  return !/^TracerPid:\s+0$/m.test(read(`/proc/${pid}/status`) ?? 'TracerPid:\t0')
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}
