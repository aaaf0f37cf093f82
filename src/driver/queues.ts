/**
 * The queues of a device under the console driver, from set-up to reset: a pair for each port number, which outlives
 * the ports that have it, and the control pair where MULTIPORT was negotiated.
 */

import { PeerFault } from '../errors.ts'
import type { Log } from '../log.ts'
import type { DmaPool } from '../mem/dma-pool.ts'
import type { DriverQueue } from '../ring/driver-queue.ts'
import {
  CONSOLE_CONFIG_MAX_NR_PORTS,
  CONSOLE_PORTS_MAX,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  receiveqOf,
  transmitqOf,
} from '../spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../spec/features.ts'
import type { DriverSettings } from './console-options.ts'
import { ControlReceiver, type ControlActions } from './control-receiver.ts'
import { ControlSender } from './control.ts'
import { makeRing, type DriverRing } from './driver-rings.ts'
import { newDriverCounters, type QueueOwner } from './port-settings.ts'
import { Receiver } from './receive.ts'
import type { Transport } from './transport.ts'
import { Transmitter, TRANSMIT_CHAIN_MAX } from './transmit.ts'

export interface Pair {
  readonly receiver: Receiver
  readonly transmitter: Transmitter
}

export class DriverQueues {
  control: { readonly sender: ControlSender; readonly receiver: ControlReceiver } | undefined
  readonly #transport: Transport
  readonly #pool: DmaPool
  readonly #accepted: bigint
  readonly #settings: DriverSettings
  readonly #owner: QueueOwner & ControlActions
  readonly #rings: DriverRing[] = []
  /** By port number; without MULTIPORT there is only port 0. */
  readonly #queues: { readonly receiveq: DriverQueue; readonly transmitq: DriverQueue }[] = []
  /** Of those ports that there have been. */
  readonly #pairs = new Map<number, Pair>()

  constructor(
    transport: Transport,
    pool: DmaPool,
    accepted: bigint,
    settings: DriverSettings,
    owner: QueueOwner & ControlActions,
  ) {
    this.#transport = transport
    this.#pool = pool
    this.#accepted = accepted
    this.#settings = settings
    this.#owner = owner
  }

  /** Ports that the device may add. */
  get ports(): number {
    return this.#queues.length
  }

  /** Who moves the bytes of a port; made when it is first asked for: most devices have far more queues than ports. */
  pair(id: number): Pair | undefined {
    const there = this.#pairs.get(id)
    const queues = this.#queues[id]
    if (there || !queues) return there
    const pair = this.#makePair(queues.receiveq, queues.transmitq)
    this.#pairs.set(id, pair)
    return pair
  }

  /** Enables all of them, a pair in each step; what was made before an error is left to `release`. */
  *setUp(log: Log): Generator<undefined, void> {
    const multiport = (this.#accepted & VIRTIO_CONSOLE_F_MULTIPORT) !== 0n
    const ports = multiport ? readMaxPorts(this.#transport, log) : 1
    for (let id = 0; id < ports; id++) {
      const receiveq = this.#enable(receiveqOf(id), { indirect: 0, tolerant: false })
      const transmitq = this.#enable(transmitqOf(id), { indirect: TRANSMIT_CHAIN_MAX, tolerant: false })
      this.#queues.push({ receiveq, transmitq })
      yield
    }
    if (!multiport) return
    const receiveq = this.#enable(CONTROL_RECEIVEQ, { indirect: 0, tolerant: false })
    // Some devices acknowledge what is said to them twice.
    const transmitq = this.#enable(CONTROL_TRANSMITQ, { indirect: 0, tolerant: true })
    const receiver = new ControlReceiver(receiveq, this.#owner, this.#settings.resizeOrder, log)
    this.control = { sender: new ControlSender(transmitq, this.#pool), receiver }
  }

  /** Gives all memory back: only once the device has been reset, or never ran; until then it may write there. */
  release(): void {
    for (const { receiver, transmitter } of this.#pairs.values()) {
      receiver.release()
      transmitter.release()
    }
    this.control?.sender.release(this.#pool)
    this.control?.receiver.release(this.#pool)
    for (const ring of this.#rings) ring.release()
  }

  #makePair(receiveq: DriverQueue, transmitq: DriverQueue): Pair {
    const settings = this.#settings
    const owner = this.#owner
    const { patience } = settings
    const receive = { len: settings.receiveLen, most: settings.receiveBuffersMax, patience }
    const transmit = { len: settings.transmitLen, count: settings.transmitBuffers, patience }
    const nobody = newDriverCounters()
    return {
      receiver: new Receiver(receiveq, this.#pool, receive, nobody, owner),
      transmitter: new Transmitter(transmitq, this.#pool, transmit, nobody, owner),
    }
  }

  #enable(index: number, { indirect, tolerant }: { indirect: number; tolerant: boolean }): DriverQueue {
    const size = this.#transport.queueSizeMax(index)
    if (size === 0) throw new PeerFault(`the device has no queue ${index} (§5.3.2)`)
    const ring = makeRing(this.#pool, index, size, {
      eventIdx: (this.#accepted & VIRTIO_RING_F_EVENT_IDX) !== 0n,
      indirect: this.#accepted & VIRTIO_RING_F_INDIRECT_DESC ? indirect : 0,
      tolerant,
    })
    this.#rings.push(ring)
    this.#transport.enableQueue(index, ring.queue.size, ring.at, true)
    return ring.queue
  }
}

/** As many ports as the device says, but no more than it has queues for. */
function readMaxPorts(transport: Transport, log: Log): number {
  const queues = transport.queueCount
  const bytes = new Uint8Array(4)
  transport.readConfig(CONSOLE_CONFIG_MAX_NR_PORTS, bytes)
  const said = new DataView(bytes.buffer).getUint32(0, true)
  const ports = Math.min(said, Math.floor(queues / 2) - 1, CONSOLE_PORTS_MAX)
  if (ports < 1) throw new PeerFault(`a multiport console with ${said} ports and ${queues} queues (§5.3.4)`)
  if (ports < said) log.warn(`the device says ${said} ports, but has ${queues} queues: ${ports} are used`)
  return ports
}
