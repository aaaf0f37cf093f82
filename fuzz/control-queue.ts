/**
 * A guest that takes its time with the control receiveq: few buffers, given back one by one, some of them at the very
 * moment in which the device looks, while ports are added, removed, opened, closed and resized. However it went: once
 * it has given back enough, it knows what is there, and nothing else.
 */

import assert from 'node:assert/strict'
import {
  CONTROL_RECEIVEQ,
  decodeControl,
  encodeControl,
  CONTROL_TRANSMITQ,
  CONSOLE_BAD_ID,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../src/spec/console.ts'
import { SplitRing } from '../src/ring/split-ring.ts'
import type { MemoryChardev } from '../test/support/memory-chardev.ts'
import { settle } from '../test/support/pair.ts'
import { BASIC, RawDriver } from '../test/support/raw-driver.ts'
import { Random, type Seed } from './random.ts'
import type { FuzzTarget } from './target.ts'

const STEPS = 120
const PORTS = 6
const CONTROL_SIZES = [2, 4, 16]
/** Rounds in which all buffers go back, at the end: far more than there is to say. */
const ROUNDS = 100

/** Called before each look of the device at the index of what is available: what a guest does meanwhile. */
let meanwhile: (() => void) | undefined
// oxlint-disable-next-line typescript/unbound-method -- applied to its object below
const availIdx = SplitRing.prototype.availIdx

interface Known {
  name: string | undefined
  open: boolean
}

class Guest {
  readonly raw: RawDriver
  readonly r: Random
  readonly known = new Map<number, Known>()
  readonly hosts = new Map<number, MemoryChardev>()
  /** Buffers that were used and not given back. */
  readonly held: number[] = []
  #serial = 0
  #busy = false

  constructor(r: Random) {
    this.r = r
    const size = r.pick(CONTROL_SIZES)
    this.raw = new RawDriver({ device: { maxPorts: PORTS, controlQueueSize: size } })
    this.raw.start(BASIC | (BigInt(r.below(4)) << 28n))
    for (let i = 0; i < Math.min(size, 1 + r.below(size)); i++) this.held.push(i)
    this.#say(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
  }

  /** A control message to the device. */
  #say(id: number, event: number, value: number): void {
    this.raw.send(CONTROL_TRANSMITQ, encodeControl(id, event, value))
  }

  /** Reads what has come. */
  read(): void {
    const queue = this.raw.queue(CONTROL_RECEIVEQ)
    for (const { id, len } of queue.takeUsed()) {
      const bytes = queue.page(id).slice(0, len)
      this.held.push(id)
      const message = decodeControl(bytes)
      assert.ok(message, `a control message of ${len} bytes`)
      const { id: port, event, value } = message
      const known = this.known.get(port)
      if (event === VIRTIO_CONSOLE_DEVICE_ADD) {
        assert.ok(!known, `port ${port} was added twice`)
        this.known.set(port, { name: undefined, open: false })
        this.#say(port, VIRTIO_CONSOLE_PORT_READY, 1)
        this.#say(port, VIRTIO_CONSOLE_PORT_OPEN, 1)
        continue
      }
      if (event === VIRTIO_CONSOLE_DEVICE_REMOVE) {
        // One that came and went before there was a buffer may be unknown: drivers ignore it.
        this.known.delete(port)
        continue
      }
      assert.ok(known, `message ${event} about port ${port}, which is not there`)
      if (event === VIRTIO_CONSOLE_PORT_NAME) known.name = Buffer.from(bytes.subarray(8)).toString().replace(/\0$/, '')
      else if (event === VIRTIO_CONSOLE_PORT_OPEN) known.open = value === 1
    }
  }

  /** Gives one buffer back; `quiet`: without telling the device. */
  giveBack(quiet: boolean): void {
    const page = this.held.shift()
    if (page === undefined) return
    const queue = this.raw.queue(CONTROL_RECEIVEQ)
    queue.postPage(page)
    if (!quiet) queue.notify()
  }

  /** Now and then, while the device looks. */
  readonly race = (): void => {
    if (this.#busy || this.held.length === 0 || !this.r.chance(8)) return
    this.#busy = true
    this.giveBack(true)
    this.#owed = true
    this.#busy = false
  }
  #owed = false

  async step(): Promise<void> {
    const { r, raw } = this
    const id = 1 + r.below(PORTS - 1)
    switch (r.below(9)) {
      case 0:
      case 1:
        if (!raw.device.port(id)) {
          const { chardev } = await raw.host({ id, name: `port.${this.#serial++}` }, r.chance(50))
          this.hosts.set(id, chardev)
        }
        break
      case 2:
        if (raw.device.port(id)) {
          raw.device.removePort(id)
          this.hosts.delete(id)
        }
        break
      case 3:
        this.hosts.get(id)?.setConnected(r.chance(50))
        break
      case 4:
        await settle(1)
        break
      case 5:
      case 6:
        this.giveBack(r.chance(20))
        break
      default:
        this.read()
    }
    // A driver that gave back while the device looked notifies as any other, a moment later.
    if (this.#owed && r.chance(70)) {
      this.#owed = false
      raw.queue(CONTROL_RECEIVEQ).notify()
    }
  }

  /** As Linux: reads, gives back, notifies, until nothing more comes. */
  async finish(): Promise<void> {
    for (let round = 0; round < ROUNDS; round++) {
      this.read()
      if (this.held.length === 0 && round > 2 * PORTS) break
      while (this.held.length > 0) this.giveBack(true)
      this.raw.queue(CONTROL_RECEIVEQ).notify()
      if (round % 10 === 0) await settle(1)
    }
    this.read()
    const there = raw(this.raw, (id) => this.hosts.get(id)?.connected ?? false)
    const knows = [...this.known].map(([id, { name, open }]) => `${id} ${name} ${open ? 'open' : 'closed'}`).toSorted()
    assert.deepEqual(knows, there, 'the guest does not know what is there')
  }
}

function raw({ device }: RawDriver, open: (id: number) => boolean): string[] {
  return device.ports.map(({ id, settings }) => `${id} ${settings.name} ${open(id) ? 'open' : 'closed'}`).toSorted()
}

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const guest = new Guest(r)
  try {
    meanwhile = guest.race
    for (let i = 0; i < STEPS && !r.ended; i++) {
      r.step()
      await guest.step()
    }
    meanwhile = undefined
    await settle(2)
    await guest.finish()
  } finally {
    meanwhile = undefined
    guest.raw.device.close()
  }
  return STEPS
}

export const CONTROL_QUEUE: FuzzTarget = {
  name: 'control-queue',
  title: 'guests of any pace, and what they know of the ports',
  start() {
    SplitRing.prototype.availIdx = function (this: SplitRing) {
      const idx = availIdx.call(this)
      meanwhile?.()
      return idx
    }
    return { episode, close: () => void (SplitRing.prototype.availIdx = availIdx) }
  },
}
