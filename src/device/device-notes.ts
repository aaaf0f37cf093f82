/**
 * The part of a device's ledger that is the console's, and what a successor makes of it. Used by console.ts; the
 * registers are in pci/common-config.ts.
 */

import { PeerFault } from '../errors.ts'
import type { GuestMemory } from '../mem/guest-memory.ts'
import { Ledger } from '../mem/ledger.ts'
import type { Receipts } from '../mem/receipts.ts'
import type { Batch } from '../ring/batch.ts'
import type { QueueNotes } from '../ring/position.ts'
import { replay } from '../ring/replay.ts'
import { portOfQueue } from '../spec/console.ts'
import { queueFeatures } from './console-features.ts'
import { ControlNotes } from './control-notes.ts'
import { COUNTER_CELLS } from './counters.ts'
import type { ResumedState } from './device.ts'
import type { PortTable } from './port-table.ts'
import type { PortNotes } from './port.ts'
import type { DeviceQueues } from './queues.ts'

export class DeviceNotes {
  readonly ledger: Ledger
  readonly queues: QueueNotes
  readonly control: ControlNotes
  readonly #receipts: Receipts | undefined
  readonly #flags: Uint8Array
  readonly #counters: Float64Array
  readonly #firmware: Uint8Array

  constructor(ledger: Ledger | undefined, maxPorts: number, queueCount: number) {
    this.ledger = ledger ?? new Ledger()
    const positions = this.ledger.f64(queueCount)
    this.#receipts = this.ledger.receipts(positions)
    this.queues = { positions, receipts: this.#receipts }
    this.#flags = this.ledger.bytes(maxPorts)
    this.#counters = this.ledger.f64(maxPorts * COUNTER_CELLS)
    this.control = new ControlNotes(maxPorts, this.ledger)
    this.#firmware = this.ledger.bytes(1)
  }

  /** The driver is a firmware's: see firmware.ts. */
  get firmware(): boolean {
    return this.#firmware[0] === 1
  }
  set firmware(is: boolean) {
    this.#firmware[0] = is ? 1 : 0
  }

  port(id: number, resumed: boolean): PortNotes {
    const counters = this.#counters.subarray(id * COUNTER_CELLS, (id + 1) * COUNTER_CELLS)
    return { flags: this.#flags, counters, resumed, driver: this }
  }

  /** Queues as the process before left them. */
  resumeQueues(all: DeviceQueues, memory: GuestMemory, { features, queues }: ResumedState): void {
    for (const { index, size, at } of queues) all.resume(index, memory, size, at, queueFeatures(features))
  }

  /** The bytes of its last system call, where it died before it could note them. */
  replay(all: DeviceQueues, ports: PortTable, batch: Batch): void {
    const moved = this.#receipts?.unrecorded()
    const id = moved && portOfQueue(moved.queue)
    const port = id === undefined ? undefined : ports.get(id)
    if (!moved || !port) return
    const sent = (moved.queue & 1) !== 0
    if (moved.bytes === undefined) {
      port.counters[sent ? 'guestToHostRepeated' : 'hostToGuestDropped'] += moved.offered
      port.warn(
        `up to ${moved.offered} bytes may have been ${sent ? 'sent twice' : 'lost'} when the device process died`,
      )
      return
    }
    try {
      const bytes = replay(all.get(moved.queue)!, batch, sent ? 'readable' : 'writable', moved.bytes)
      port.counters[sent ? 'guestToHostBytes' : 'hostToGuestBytes'] += bytes
    } catch (error) {
      // The queue is broken since, and says so when it is served.
      if (!(error instanceof PeerFault)) throw error
    }
  }
}
