/**
 * What a console driver does with the registers and the control queues, in the order of Linux's, and what it has been
 * told so far. Anything that it is told twice, or of a port that it does not know, is noted.
 */

import {
  CONSOLE_BAD_ID,
  CONTROL_EVENT_NAMES,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  decodeControl,
  encodeControl,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_RESIZE,
} from '../src/spec/console.ts'
import {
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
} from '../src/spec/features.ts'
import {
  VIRTIO_PCI_COMMON_DF,
  VIRTIO_PCI_COMMON_DFSELECT,
  VIRTIO_PCI_COMMON_GF,
  VIRTIO_PCI_COMMON_GFSELECT,
  VIRTIO_PCI_COMMON_MSIX,
  VIRTIO_PCI_COMMON_Q_AVAILLO,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_ENABLE,
  VIRTIO_PCI_COMMON_Q_MSIX,
  VIRTIO_PCI_COMMON_Q_RESET,
  VIRTIO_PCI_COMMON_Q_SELECT,
  VIRTIO_PCI_COMMON_Q_SIZE,
  VIRTIO_PCI_COMMON_Q_USEDLO,
  VIRTIO_PCI_COMMON_STATUS,
} from '../src/spec/pci.ts'
import type { Guest } from './guest.ts'

export const QUEUES = 16
export const QUEUE_SIZE = 32
const FEATURES = VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_CONSOLE_F_SIZE | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_RESET

/** A port as the driver knows it. */
export interface KnownPort {
  console: boolean
  name: string
  hostOpen: boolean
  size: string
}

export class Driver {
  readonly guest: Guest
  readonly ports: Map<number, KnownPort> = new Map()
  /** Bytes that have come and that nobody has looked at, by port. */
  readonly inbox: Map<number, Buffer> = new Map()
  /** Messages that no device may send. */
  readonly wrong: string[] = []
  status = 0
  readonly #waiting: [id: number, event: number, value: number][] = []
  /** Ports that are opened as soon as they are made: the driver's programs wait for them. */
  readonly #programs = new Set<number>()

  constructor(guest: Guest) {
    this.guest = guest
  }

  get features(): bigint {
    return FEATURES | (this.guest.eventIdx ? VIRTIO_RING_F_EVENT_IDX : 0n)
  }

  async setStatus(status: number): Promise<void> {
    await this.guest.write(VIRTIO_PCI_COMMON_STATUS, status, 1)
    this.status = status
  }

  async reset(): Promise<void> {
    await this.setStatus(0)
    this.forget()
  }

  /** The device has been reset, by whomever. */
  forget(): void {
    this.status = 0
    this.guest.queues.clear()
    this.guest.selects.clear()
    this.ports.clear()
    this.#programs.clear()
    this.#waiting.length = 0
  }

  async negotiate(): Promise<void> {
    const { guest } = this
    await this.setStatus(1)
    await this.setStatus(3)
    let offered = 0n
    for (const word of [0, 1]) {
      await guest.write(VIRTIO_PCI_COMMON_DFSELECT, word, 4)
      offered |= BigInt(await guest.readNumber(VIRTIO_PCI_COMMON_DF, 4)) << BigInt(32 * word)
    }
    if ((offered & this.features) !== this.features) throw new Error(`offered are ${offered.toString(16)}`)
    for (const word of [0, 1]) {
      await guest.write(VIRTIO_PCI_COMMON_GFSELECT, word, 4)
      await guest.write(VIRTIO_PCI_COMMON_GF, Number((this.features >> BigInt(32 * word)) & 0xffffffffn), 4)
    }
    await this.setStatus(11)
    const status = await guest.readNumber(VIRTIO_PCI_COMMON_STATUS, 1)
    if (status !== 11) throw new Error(`status is ${status} after FEATURES_OK`)
    await guest.write(VIRTIO_PCI_COMMON_MSIX, 0, 2)
  }

  async enableQueue(index: number): Promise<void> {
    const { guest } = this
    const queue = guest.makeQueue(index, QUEUE_SIZE)
    const { desc, avail, used } = queue.raw.at
    await guest.write(VIRTIO_PCI_COMMON_Q_SELECT, index, 2)
    await guest.write(VIRTIO_PCI_COMMON_Q_SIZE, QUEUE_SIZE, 2)
    await guest.write(VIRTIO_PCI_COMMON_Q_MSIX, queue.vector, 2)
    const addresses = [
      [VIRTIO_PCI_COMMON_Q_DESCLO, desc],
      [VIRTIO_PCI_COMMON_Q_AVAILLO, avail],
      [VIRTIO_PCI_COMMON_Q_USEDLO, used],
    ] as const
    for (const [register, address] of addresses) {
      await guest.write(register, address % 2 ** 32, 4)
      await guest.write(register + 4, Math.floor(address / 2 ** 32), 4)
    }
    await guest.write(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2)
    if (index === CONTROL_RECEIVEQ) queue.onBytes = (bytes) => this.#told(bytes)
    else if ((index & 1) === 0) {
      const port = index === 0 ? 0 : (index >> 1) - 1
      queue.onBytes = (bytes) => this.inbox.set(port, Buffer.concat([this.bytes(port), bytes]))
    }
  }

  async resetQueue(index: number): Promise<void> {
    const { guest } = this
    await guest.write(VIRTIO_PCI_COMMON_Q_SELECT, index, 2)
    await guest.write(VIRTIO_PCI_COMMON_Q_RESET, 1, 2)
    if ((await guest.readNumber(VIRTIO_PCI_COMMON_Q_RESET, 2)) !== 0) throw new Error('queue_reset is not done')
    if ((await guest.readNumber(VIRTIO_PCI_COMMON_Q_ENABLE, 2)) !== 0)
      throw new Error('a queue that was reset is enabled')
    guest.queues.delete(index)
  }

  /** DRIVER_OK, buffers, and the question which ports there are. */
  async start(): Promise<void> {
    await this.setStatus(15)
  }

  askForPorts(): void {
    this.guest.queue(CONTROL_RECEIVEQ).post()
    this.#say(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
  }

  /** Buffers for a port's input, as Linux gives them before it says that the port is ready. */
  postBuffers(id: number): void {
    this.guest.queue(receiveqOf(id)).post()
  }

  open(id: number, open: boolean): void {
    if (open) this.#programs.add(id)
    else this.#programs.delete(id)
    this.#say(id, VIRTIO_CONSOLE_PORT_OPEN, open ? 1 : 0)
  }

  isOpen(id: number): boolean {
    return this.#programs.has(id)
  }

  canSend(id: number): boolean {
    return this.guest.queue(transmitqOf(id)).room
  }

  send(id: number, bytes: Uint8Array): void {
    this.guest.queue(transmitqOf(id)).send(bytes)
  }

  /** Everything that was sent has come back. */
  idle(id: number): boolean {
    return this.guest.queue(transmitqOf(id)).outstanding === 0
  }

  bytes(id: number): Buffer {
    return this.inbox.get(id) ?? Buffer.alloc(0)
  }

  /** Nothing is out that the device should have given back. */
  get quiet(): boolean {
    return this.#waiting.length === 0 && this.guest.queue(CONTROL_TRANSMITQ).outstanding === 0
  }

  /** For whoever has to find out why something did not happen. */
  describe(): string {
    const queues = [...this.guest.queues.values()].map(({ index, raw, outstanding }) => {
      const { availIdx, usedIdx, seenUsed, usedFlags, availEvent } = raw
      return `${index}: avail ${availIdx} used ${usedIdx} seen ${seenUsed} flags ${usedFlags} event ${availEvent} out ${outstanding}`
    })
    return `the guest knows ${JSON.stringify([...this.ports])}; queues ${queues.join(', ')}`
  }

  /** Control messages that found no room are sent by the next call. */
  flush(): void {
    const queue = this.guest.queues.get(CONTROL_TRANSMITQ)
    if (queue) for (; queue.room && this.#waiting.length > 0;) queue.send(encodeControl(...this.#waiting.shift()!))
  }

  #say(id: number, event: number, value: number): void {
    this.#waiting.push([id, event, value])
    this.flush()
  }

  #told(bytes: Buffer): void {
    const message = decodeControl(bytes)
    if (!message) return void this.wrong.push(`a control message of ${bytes.length} bytes`)
    const { id, event, value } = message
    const text = `${CONTROL_EVENT_NAMES[event]} ${id} ${value}`
    const port = this.ports.get(id)
    if (event === VIRTIO_CONSOLE_DEVICE_ADD) {
      if (port) return void this.wrong.push(`${text}: it is there already`)
      this.ports.set(id, { console: false, name: '', hostOpen: false, size: '' })
      this.postBuffers(id)
      this.#say(id, VIRTIO_CONSOLE_PORT_READY, 1)
      return
    }
    if (!port) return void this.wrong.push(`${text}: there is no such port`)
    if (event === VIRTIO_CONSOLE_DEVICE_REMOVE) {
      this.ports.delete(id)
      this.#programs.delete(id)
      for (const queue of [receiveqOf(id), transmitqOf(id)]) this.guest.queue(queue).detach()
    } else if (event === VIRTIO_CONSOLE_CONSOLE_PORT) {
      if (port.console) this.wrong.push(`${text}: said before`)
      port.console = true
    } else if (event === VIRTIO_CONSOLE_PORT_NAME) {
      if (port.name !== '') this.wrong.push(`${text}: said before`)
      port.name = bytes.subarray(8).toString()
    } else if (event === VIRTIO_CONSOLE_RESIZE) port.size = bytes.subarray(8).toString('hex')
    else if (event === VIRTIO_CONSOLE_PORT_OPEN) {
      if (port.hostOpen === (value === 1)) this.wrong.push(`${text}: said before`)
      port.hostOpen = value === 1
    } else this.wrong.push(text)
  }
}
