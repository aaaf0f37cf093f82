/**
 * The driver's control messages (§5.3.6.2.2): per port a little state instead of a queue of messages, as on the
 * device's side. A device that adds a port a million times gets one PORT_READY for each buffer it gives back, and
 * nothing grows. The edge of a program that closed a port and opened it again is kept: the device must see both.
 */

import type { DmaBuffer, DmaPool } from '../mem/dma-pool.ts'
import type { DriverQueue, Used } from '../ring/driver-queue.ts'
import { ENTRY_COST, type Turn } from './turn.ts'
import {
  CONSOLE_BAD_ID,
  CONSOLE_CONTROL_SIZEOF,
  encodeControl,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../spec/console.ts'

interface PortNews {
  owesReady: boolean
  open: boolean
  toldOpen: boolean
  owesClose: boolean
}

/** Messages on their way at a time. */
const SLOTS = 16

export class ControlSender {
  readonly #queue: DriverQueue
  readonly #ports: (PortNews | undefined)[] = []
  readonly #dirty = new Set<number>()
  readonly #buffer: DmaBuffer
  readonly #freeSlots: number[] = []
  readonly #slotOf: number[] = []
  readonly #used: Used = { head: 0, len: 0 }
  #owesDeviceReady = false
  sent = 0

  constructor(queue: DriverQueue, pool: DmaPool) {
    this.#queue = queue
    // Half the ring at most: a device that acknowledges everything twice must not run over its own entries.
    const slots = Math.max(1, Math.min(SLOTS, queue.size >> 1))
    this.#buffer = pool.allocate(slots * CONSOLE_CONTROL_SIZEOF)
    for (let slot = 0; slot < slots; slot++) this.#freeSlots.push(slot)
  }

  /** Gives its memory back; the device has been reset. */
  release(pool: DmaPool): void {
    pool.free(this.#buffer)
  }

  deviceReady(): void {
    this.#owesDeviceReady = true
  }

  /** Answers DEVICE_ADD; said again, it makes the device tell everything about the port again. */
  portReady(id: number): void {
    const port = (this.#ports[id] ??= { owesReady: false, open: false, toldOpen: false, owesClose: false })
    port.owesReady = true
    port.toldOpen = false
    port.owesClose = false
    this.#dirty.add(id)
  }

  setOpen(id: number, open: boolean): void {
    const port = this.#ports[id]
    if (!port) return
    if (!open && port.toldOpen) port.owesClose = true
    port.open = open
    this.#dirty.add(id)
  }

  /** The port is gone: nothing more is said about it. */
  forget(id: number): void {
    this.#ports[id] = undefined
    this.#dirty.delete(id)
  }

  /**
   * Sends what can be sent now, as far as the turn goes: who finds it over comes again. True when the device is to be
   * notified. PeerFault when it broke the queue.
   */
  pump(turn: Turn): boolean {
    this.#queue.disableInterrupts()
    do {
      this.#reclaim()
      if (this.#owesDeviceReady && this.#send(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1))
        this.#owesDeviceReady = false
      for (const id of this.#dirty) {
        while (this.#tell(id, this.#ports[id])) if (this.#freeSlots.length === 0) break
        if (this.#freeSlots.length === 0) break
        this.#dirty.delete(id)
      }
      // Without a free slot the interrupt of the next one brings us back here.
    } while (this.#freeSlots.length === 0 && !turn.over && this.#more(turn))
    return this.#queue.publish()
  }

  /** Whether the device has given something back by now; where it has not, its interrupt will say so. */
  #more(turn: Turn): boolean {
    if (!this.#queue.enableInterrupts()) return false
    turn.spend(ENTRY_COST)
    return true
  }

  #reclaim(): void {
    while (this.#queue.takeUsed(this.#used)) this.#freeSlots.push(this.#slotOf[this.#used.head]!)
  }

  /** Says one thing about a port; false when there is nothing to say, or no room. */
  #tell(id: number, port: PortNews | undefined): boolean {
    if (!port) return false
    if (port.owesReady) {
      if (!this.#send(id, VIRTIO_CONSOLE_PORT_READY, 1)) return false
      port.owesReady = false
    } else if (port.toldOpen && (port.owesClose || !port.open)) {
      if (!this.#send(id, VIRTIO_CONSOLE_PORT_OPEN, 0)) return false
      port.toldOpen = port.owesClose = false
    } else if (!port.toldOpen && port.open) {
      if (!this.#send(id, VIRTIO_CONSOLE_PORT_OPEN, 1)) return false
      port.toldOpen = true
    } else return false
    return true
  }

  #send(id: number, event: number, value: number): boolean {
    const slot = this.#freeSlots.pop()
    if (slot === undefined) return false
    const offset = slot * CONSOLE_CONTROL_SIZEOF
    this.#buffer.bytes.set(encodeControl(id, event, value), offset)
    const head = this.#queue.addOne(this.#buffer.address + offset, CONSOLE_CONTROL_SIZEOF, false)
    if (head < 0) {
      this.#freeSlots.push(slot)
      return false
    }
    this.#slotOf[head] = slot
    this.sent++
    return true
  }
}
