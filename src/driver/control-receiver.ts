/**
 * The device's control messages (§5.3.6.2), as the driver hears them: decoded, checked, and turned into calls. The
 * mirror of device/control-receiver.ts. Messages that make no sense are counted and ignored: ids out of range, short
 * ones, events about ports that were not added.
 */

import { printable, type Log } from '../log.ts'
import type { DmaBuffer, DmaPool } from '../mem/dma-pool.ts'
import { NO_HEAD, type DriverQueue, type Used } from '../ring/driver-queue.ts'
import {
  CONSOLE_CONTROL_SIZEOF,
  CONSOLE_NAME_MAX,
  CONTROL_EVENT_NAMES,
  decodeControl,
  decodeSize,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_RESIZE,
  type ControlMessage,
  type ResizeOrder,
} from '../spec/console.ts'
import type { DriverPort } from './port.ts'
import { CONTROL_COST, type Turn } from './turn.ts'

/** What a message makes the driver do. */
export interface ControlActions {
  port(id: number): DriverPort | undefined
  /** DEVICE_ADD; false where there can be no such port. */
  add(id: number): boolean
  remove(port: DriverPort): void
  /** CONSOLE_PORT. */
  becomeConsole(port: DriverPort): void
}

/** Linux's is a page; nothing that a device says is longer than a name. */
const BUFFER_LEN = 256
const BUFFERS = 32
/** The log is not the device's to fill. */
const COMPLAINTS_MAX = 20

export class ControlReceiver {
  ignored = 0
  #complaints = 0
  readonly #queue: DriverQueue
  readonly #actions: ControlActions
  readonly #log: Log
  readonly #order: ResizeOrder
  readonly #buffers: DmaBuffer[] = []
  readonly #bufferOf: number[] = []
  readonly #used: Used = { head: 0, len: 0 }

  constructor(queue: DriverQueue, actions: ControlActions, order: ResizeOrder, log: Log) {
    this.#queue = queue
    this.#actions = actions
    this.#order = order
    this.#log = log
  }

  /** Makes buffers and hands them to the device; true when it is to be notified. */
  fill(pool: DmaPool): boolean {
    while (this.#buffers.length < Math.min(BUFFERS, this.#queue.size))
      this.#post(this.#buffers.push(pool.allocate(BUFFER_LEN)) - 1)
    return this.#queue.publish()
  }

  release(pool: DmaPool): void {
    for (const buffer of this.#buffers) pool.free(buffer)
  }

  /**
   * Acts on the messages there are, as far as the turn goes: who finds it over comes again. True when the device is to
   * be notified. PeerFault when it broke the queue.
   */
  run(turn: Turn): boolean {
    const queue = this.#queue
    let notify = false
    do {
      queue.disableInterrupts()
      while (!turn.over && queue.takeUsed(this.#used)) {
        turn.spend(CONTROL_COST)
        const buffer = this.#bufferOf[this.#used.head]!
        // A copy: the device still has the buffer mapped, and what was checked must be what is used.
        const bytes = this.#buffers[buffer]!.bytes.slice(0, this.#used.len)
        this.#post(buffer)
        this.#handle(bytes)
      }
      notify = queue.publish() || notify
    } while (!turn.over && queue.enableInterrupts())
    return notify
  }

  #handle(bytes: Uint8Array): void {
    const message = decodeControl(bytes)
    if (!message) {
      this.ignored++
      return
    }
    const { id, event, value } = message
    this.#log.debug(`control: ${CONTROL_EVENT_NAMES[event] ?? `event ${event}`} port ${id} value ${value}`)
    if (event === VIRTIO_CONSOLE_DEVICE_ADD) {
      if (!this.#actions.add(id)) this.ignored++
      return
    }
    const port = this.#actions.port(id)
    if (!port || !this.#handlePort(port, message, bytes.subarray(CONSOLE_CONTROL_SIZEOF))) this.ignored++
  }

  /** False for a message that makes no sense. */
  #handlePort(port: DriverPort, { event, value }: ControlMessage, tail: Uint8Array): boolean {
    if (event === VIRTIO_CONSOLE_DEVICE_REMOVE) this.#actions.remove(port)
    else if (event === VIRTIO_CONSOLE_PORT_OPEN) port.setHostOpen(value !== 0)
    else if (event === VIRTIO_CONSOLE_CONSOLE_PORT && value === 1) this.#actions.becomeConsole(port)
    else if (event === VIRTIO_CONSOLE_RESIZE) return this.#resize(port, tail)
    else if (event === VIRTIO_CONSOLE_PORT_NAME) return this.#name(port, tail)
    else return false
    return true
  }

  #resize(port: DriverPort, tail: Uint8Array): boolean {
    const size = decodeSize(tail, this.#order)
    if (!size || !port.console) return false
    port.setSize(size.cols, size.rows)
    return true
  }

  /**
   * Some devices end a name with a NUL, which is not part of it. A name is used for files: it has to be fit for that.
   */
  #name(port: DriverPort, tail: Uint8Array): boolean {
    const end = tail.indexOf(0)
    const bytes = end === -1 ? tail : tail.subarray(0, end)
    const name = decodeName(bytes)
    if (name === undefined) {
      if (this.#complaints++ >= COMPLAINTS_MAX) return false
      const shown = printable(new TextDecoder().decode(bytes.subarray(0, CONSOLE_NAME_MAX)))
      this.#log.warn(`port ${port.id}: the device gave it a name that cannot be used: "${shown}"`)
      return false
    }
    port.setName(name)
    return true
  }

  #post(buffer: number): void {
    const head = this.#queue.addOne(this.#buffers[buffer]!.address, BUFFER_LEN, true)
    if (head !== NO_HEAD) this.#bufferOf[head] = buffer
  }
}

/** UTF-8 that is one path component without control characters; undefined otherwise. */
function decodeName(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0 || bytes.length > CONSOLE_NAME_MAX) return undefined
  try {
    const name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    // oxlint-disable-next-line no-control-regex
    return name === '.' || name === '..' || /[\u0000-\u001f\u007f-\u009f\u2028\u2029/]/.test(name) ? undefined : name
  } catch {
    return undefined
  }
}
