/**
 * The guest and the host talk in lone messages: one asks, the other answers, and the next question follows. To look for
 * what comes next costs less than to sleep and to be woken, the guest need not notify us, and the answer is there
 * sooner. Where a port says several things at once, or is not answered so soon, this is `transmit.run` and nothing
 * more. Used by port.ts.
 */

import type { DeviceQueue } from '../ring/device-queue.ts'
import type { PortCounters } from './counters.ts'
import { alone, Lookout } from './lookout.ts'
import type { PortOwner } from './port-settings.ts'
import type { Receiver } from './receive.ts'
import type { Transmitter } from './transmit.ts'

/** How long an answer is looked for: it takes a process on another processor as long to be woken and to answer. */
const ANSWER_MS = 0.03
/** And what the guest says next: its interrupt goes through the VMM, which wakes a virtual processor. */
const NEXT_MS = 0.1
/** After that the event loop has a turn, and others with it. */
const TURN_MS = 0.5

export class Conversation {
  readonly #transmitter: Transmitter
  readonly #receiver: Receiver
  readonly #counters: PortCounters
  readonly #owner: PortOwner
  readonly #answer = new Lookout(ANSWER_MS, () => this.#answered())
  readonly #next = new Lookout(NEXT_MS, () => this.#available(this.#transmitter.queue))
  readonly #giveWay = (): void => this.#transmitter.chardev?.giveWay?.()
  /** Will go on after the others' turn. */
  #deferred = false

  constructor(transmitter: Transmitter, receiver: Receiver, counters: PortCounters, owner: PortOwner) {
    this.#transmitter = transmitter
    this.#receiver = receiver
    this.#counters = counters
    this.#owner = owner
  }

  /** The transmitq's notification. */
  run(): void {
    if (alone(this) && !this.#deferred) this.#go(false)
    else this.#transmitter.run()
  }

  /** The port is told of something else: whoever looks holds that up too. */
  interrupted(): void {
    alone(this)
  }

  #go(answered: boolean): void {
    const transmitter = this.#transmitter
    const end = performance.now() + TURN_MS
    while (!answered || this.#look(this.#next)) {
      const before = transmitter.queue.consumed
      if (!transmitter.run(false)) return
      answered = transmitter.queue.consumed - before === 1 && this.#mayAnswer() && this.#look(this.#answer)
      if (!answered) break
      if (performance.now() >= end) return this.#defer()
    }
    transmitter.run()
  }

  #defer(): void {
    this.#deferred = true
    this.#owner.work.defer(() => {
      this.#deferred = false
      if (alone(this)) this.#go(true)
      else this.#transmitter.run()
    })
  }

  #look(lookout: Lookout): boolean {
    return this.#transmitter.chardev?.giveWay !== undefined && lookout.look(this.#giveWay)
  }

  /** Whether there is room for an answer. */
  #mayAnswer(): boolean {
    return this.#receiver.open && this.#available(this.#receiver.queue)
  }

  #answered(): boolean {
    const before = this.#counters.hostToGuestBytes
    this.#receiver.run()
    return this.#counters.hostToGuestBytes !== before
  }

  #available(queue: DeviceQueue): boolean {
    try {
      return queue.available() > 0
    } catch (error) {
      this.#owner.fault(queue, error)
      return false
    }
  }
}
