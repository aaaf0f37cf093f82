/**
 * Guests that make work without end: long indirect tables that all chains share, chains that are useless for their
 * queue, a ring that is full again whenever the device looks, notifications by the dozen. No step and no turn of the
 * event loop is long, and the other port goes on.
 */

import { SplitRing } from '../src/ring/split-ring.ts'
import { receiveqOf, transmitqOf } from '../src/spec/console.ts'
import type { MemoryChardev } from '../test/support/memory-chardev.ts'
import { settle } from '../test/support/pair.ts'
import { BASIC, RawDriver } from '../test/support/raw-driver.ts'
import { writeDesc, type RawQueue } from '../test/support/raw-queue.ts'
import { Random, type Seed } from './random.ts'
import type { FuzzTarget } from './target.ts'

const STEPS = 25
const TABLE = 0x4000
/** As many as fit between the descriptors and the available ring. */
const TABLE_MAX = 1023
const [NEXT, WRITE, INDIRECT] = [1, 2, 4]
const INDIRECT_FEATURE = 1n << 28n

/** Queues that are full again at each look of the device. */
const endless = new Set<RawQueue>()
let looking = false
// oxlint-disable-next-line typescript/unbound-method -- applied to its object below
const availIdx = SplitRing.prototype.availIdx

/** All chains of the queue are one table of `count` descriptors, of which the last alone may be of use. */
function share(r: Random, queue: RawQueue): void {
  const count = r.pick([1, 4, 100, TABLE_MAX, TABLE_MAX])
  const receives = queue.index % 2 === 0
  const useless = receives ? 0 : WRITE
  const useful = receives ? WRITE : 0
  const page = queue.pageAddress(0)
  const all = r.chance(70) ? useless : useful
  for (let i = 0; i < count; i++) {
    const last = i === count - 1
    const flags = last ? (r.chance(70) ? useful : useless) : all | NEXT
    writeDesc(queue.view, TABLE + 16 * i, page, r.pick([1, 1, 8]), flags, last ? 0 : i + 1)
  }
  for (let i = 0; i < queue.size; i++) {
    queue.desc(i, queue.region.base + TABLE, 16 * count, INDIRECT)
    queue.setAvailRing(i, i)
  }
}

class Flood {
  readonly #r: Random
  readonly #raw: RawDriver
  readonly #hosts: MemoryChardev[] = []
  readonly #policy: 'block' | 'drop-oldest' | 'drop-newest' | 'discard'

  constructor(r: Random) {
    this.#r = r
    this.#policy = r.pick(['block', 'block', 'drop-oldest', 'drop-newest', 'discard'])
    this.#raw = new RawDriver({ device: { maxPorts: 3, queueSize: r.pick([8, 128, 256]) } })
  }

  async begin(): Promise<void> {
    const onClose = this.#r.pick([undefined, 'discard', 'keep', 'drain'] as const)
    for (const id of [1, 2]) {
      const port = { id, name: `p${id}`, policy: this.#policy, onClose, buffer: 4096, drainMs: 5 }
      this.#hosts.push((await this.#raw.host(port, this.#r.chance(60))).chardev)
    }
    this.#raw.start(BASIC | INDIRECT_FEATURE | (BigInt(this.#r.below(2)) << 29n)).ready()
    for (const id of [1, 2]) this.#raw.open(id)
  }

  async step(): Promise<void> {
    const r = this.#r
    const raw = this.#raw
    const queue = raw.queue(r.pick([receiveqOf(1), transmitqOf(1), transmitqOf(1), transmitqOf(2)]))
    const host = r.pick(this.#hosts)
    switch (r.below(8)) {
      case 0:
      case 1:
        share(r, queue)
        break
      case 2:
        if (r.chance(70)) endless.add(queue)
        else endless.delete(queue)
        break
      case 3:
        host.setConnected(r.chance(50))
        break
      case 4:
        host.send(r.bytes(r.pick([1, 100, 5000, 100_000])))
        break
      case 5:
        host.setRoom(r.pick([0, 1, 5000, Infinity]))
        break
      case 6:
        if (r.chance(15) && raw.device.port(2)) raw.device.removePort(2)
        break
      default:
        await settle(1 + r.below(3))
    }
    looking = false
    queue.setAvailIdx(queue.usedIdx + queue.size)
    looking = true
    for (let i = r.pick([1, 1, 3, 30]); i > 0; i--) queue.notify()
  }

  close(): void {
    this.#raw.device.close()
  }
}

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const flood = new Flood(r)
  try {
    await flood.begin()
    looking = true
    for (let i = 0; i < STEPS && !r.ended; i++) {
      r.step()
      await flood.step()
    }
    r.step()
    await settle(3)
  } finally {
    looking = false
    endless.clear()
    flood.close()
  }
  return STEPS
}

export const FLOODS: FuzzTarget = {
  name: 'floods',
  title: 'guests that make work without end',
  start() {
    SplitRing.prototype.availIdx = function (this: SplitRing) {
      if (looking) for (const queue of endless) queue.setAvailIdx(queue.usedIdx + queue.size)
      return availIdx.call(this)
    }
    return { episode, close: () => void (SplitRing.prototype.availIdx = availIdx) }
  },
}
