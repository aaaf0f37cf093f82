/**
 * The queues of a device: which of them are enabled, and how they follow the memory map and the bus master bit. A guest
 * can change both as often as it likes, with a thousand queues enabled: what that costs is charged, and where a turn is
 * used up the looking waits, while each queue finds its ring by itself when it is needed. Used by console.ts.
 */

import type { GuestMemory } from '../mem/guest-memory.ts'
import { DeviceQueue, type QueueFeatures } from '../ring/device-queue.ts'
import type { QueueNotes } from '../ring/position.ts'
import type { RingAddresses } from '../ring/split-ring.ts'
import { Repoll } from './repoll.ts'
import type { DeviceWork } from './work.ts'

/** What it costs to look up one ring, see work.ts. */
const REBIND_COST = 200

export class DeviceQueues {
  readonly #all: DeviceQueue[] = []
  readonly #enabled = new Set<DeviceQueue>()
  readonly #work: DeviceWork
  readonly #serve: (queue: number) => void
  #busMaster = true

  /** `serve` does what there is to do for a queue; `after` calls later. */
  constructor(
    count: number,
    notes: QueueNotes,
    work: DeviceWork,
    serve: (queue: number) => void,
    after: (ms: number, fn: () => void) => unknown,
  ) {
    const repoll = new Repoll(count, after, (queue) => this.#poll(queue))
    for (let i = 0; i < count; i++) this.#all.push(new DeviceQueue(i, notes, (queue) => repoll.armed(queue)))
    this.#work = work
    this.#serve = serve
  }

  get enabled(): Iterable<DeviceQueue> {
    return this.#enabled
  }

  get(queue: number): DeviceQueue | undefined {
    return this.#all[queue]
  }

  /** Throws PeerFault when its addresses or its size cannot be right. */
  enable(index: number, memory: GuestMemory, size: number, at: RingAddresses, features: QueueFeatures): void {
    const queue = this.#all[index]!
    queue.enable(memory, size, at, features)
    this.#add(queue)
  }

  /** Goes on with one that another process had. */
  resume(index: number, memory: GuestMemory, size: number, at: RingAddresses, features: QueueFeatures): void {
    const queue = this.#all[index]!
    queue.resume(memory, size, at, features)
    this.#add(queue)
  }

  disable(index: number): void {
    const queue = this.#all[index]!
    queue.disable()
    this.#enabled.delete(queue)
  }

  disableAll(): void {
    for (const queue of this.#enabled) queue.disable()
    this.#enabled.clear()
  }

  /** Does what there is to do for all; `resumed`: after all have published what another process has left. */
  serveAll(resumed = false): void {
    if (resumed) for (const queue of this.#enabled) queue.flush()
    for (const queue of this.#enabled) this.#serve(queue.index)
  }

  setBusMaster(on: boolean): void {
    if (on === this.#busMaster) return
    this.#busMaster = on
    for (const queue of this.#enabled) queue.hold(!on)
    if (on) this.memoryChanged()
  }

  /** The memory map has changed: rings that are there again have to be served. */
  memoryChanged(): void {
    if (!this.#busMaster || this.#enabled.size === 0) return
    if (this.#work.left <= 0) this.#work.deferQueue(this.#all.length)
    else this.look(this.#all.length)
  }

  /** The turn for what was put off; whether `queue` is the number for that. */
  look(queue: number): boolean {
    if (queue !== this.#all.length) return false
    this.#work.charge(this.#enabled.size * REBIND_COST, 0)
    for (const { index } of this.#enabled) if (this.#all[index]!.cameBack()) this.#serve(index)
    return true
  }

  /** Whether there is something in a queue after all; then it is served, as if the driver had notified. */
  #poll(index: number): boolean {
    try {
      if (this.#all[index]!.available() === 0) return false
    } catch {
      // An index that cannot be: who serves the queue says so.
    }
    this.#serve(index)
    return true
  }

  #add(queue: DeviceQueue): void {
    this.#enabled.add(queue)
    if (!this.#busMaster) queue.hold(true)
  }
}
