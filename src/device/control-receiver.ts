/**
 * The guest's control messages (§5.3.6.2): taken at once, then acted on.
 *
 * Linux sends one at a time and spins with a lock held until its buffer is back, so the buffer goes back before
 * anything is done about the message, whatever it says. Messages that make no sense are counted and ignored.
 */

import type { Log } from '../log.ts'
import type { Batch } from '../ring/batch.ts'
import type { DeviceQueue } from '../ring/device-queue.ts'
import {
  CONSOLE_CONTROL_SIZEOF,
  CONTROL_EVENT_NAMES,
  decodeControl,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  type ControlMessage,
} from '../spec/console.ts'
import type { ControlNotes } from './control-notes.ts'
import type { ControlSender } from './control.ts'
import type { PortTable } from './port-table.ts'
import type { Port } from './port.ts'
import { costOf, type DeviceWork } from './work.ts'

export interface ControlReceiverOwner {
  readonly batch: Batch
  interrupt(queue: DeviceQueue): void
  fault(queue: DeviceQueue, error: unknown): void
  readonly work: DeviceWork
  /** There may be something to tell the guest now. */
  pumpControl(): void
  portReady(port: Port): void
}

export class ControlReceiver {
  /** Messages that were ignored: too short, unknown, about no port. */
  ignored = 0
  readonly #queue: DeviceQueue
  readonly #ports: PortTable
  readonly #sender: ControlSender
  readonly #notes: ControlNotes
  readonly #owner: ControlReceiverOwner
  readonly #log: Log
  readonly #bytes = new Uint8Array(CONSOLE_CONTROL_SIZEOF)

  constructor(
    queue: DeviceQueue,
    ports: PortTable,
    sender: ControlSender,
    notes: ControlNotes,
    owner: ControlReceiverOwner,
    log: Log,
  ) {
    this.#queue = queue
    this.#notes = notes
    this.#ports = ports
    this.#sender = sender
    this.#owner = owner
    this.#log = log
  }

  run(): void {
    const queue = this.#queue
    const { batch, work } = this.#owner
    if (work.isDeferred(queue.index)) return
    let budget = work.quantum
    try {
      do {
        queue.disableNotify()
        for (;;) {
          if (budget <= 0) return work.deferQueue(queue.index)
          queue.gather(batch, 'readable', 1, 1)
          if (batch.count === 0) break
          const cost = costOf(batch.list.looked, 1, 0)
          const len = batch.list.copyTo(this.#bytes)
          const message = decodeControl(this.#bytes.subarray(0, len))
          const next = (queue.next + 1) & 0xffff
          if (message) this.#notes.begin(message.id, message.event, message.value, next)
          // All of it, even where it has more bytes than the list.
          queue.complete(batch, batch.lens[0]!)
          if (queue.flush()) this.#owner.interrupt(queue)
          if (message) this.#act(message)
          else this.ignored++
          budget = work.charge(cost, budget)
        }
      } while (queue.enableNotify())
    } catch (error) {
      this.#owner.fault(queue, error)
    }
  }

  /** Does what the process before did not. */
  resume(): void {
    const message = this.#notes.undone(this.#queue.next)
    if (message) this.#act(message)
  }

  /** What follows from a message is noted before anything is told for it: a successor does not tell it twice. */
  #act(message: ControlMessage): void {
    this.#handle(message)
    this.#sender.save()
    this.#notes.done()
    this.#owner.pumpControl()
  }

  #handle({ id, event, value }: ControlMessage): void {
    this.#log.debug(`control: ${CONTROL_EVENT_NAMES[event] ?? `event ${event}`} port ${id} value ${value}`)
    if (event === VIRTIO_CONSOLE_DEVICE_READY) {
      this.#sender.deviceReady(value === 1)
      if (value !== 1) this.#log.warn('the guest driver could not set up the device (DEVICE_READY 0)')
    } else {
      const port = this.#ports.get(id)
      if (port) this.#handlePort(port, event, value)
      // After hibernation Linux remembers its ports: one that is gone meanwhile is taken back.
      else if (event === VIRTIO_CONSOLE_PORT_READY && value === 1 && id < this.#ports.size && this.#sender.remembering)
        this.#sender.farewell(id, () => this.#owner.pumpControl())
      else this.ignored++
    }
  }

  #handlePort(port: Port, event: number, value: number): void {
    if (event === VIRTIO_CONSOLE_PORT_READY) {
      const meant = value === 1 && this.#sender.portReady(port.id, () => this.#owner.pumpControl())
      port.setGuestReady(meant)
      if (meant) this.#owner.portReady(port)
      else if (value !== 1) this.#log.warn(`port ${port.id}: the guest driver could not set it up (PORT_READY 0)`)
    } else if (event === VIRTIO_CONSOLE_PORT_OPEN && port.guestReady) port.setGuestOpen(value !== 0)
    else this.ignored++
  }
}
