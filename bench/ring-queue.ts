/** One queue without halves around it, and what the machine itself can do: what the ring cases are held against. */
import { makeRing } from '../src/driver/driver-rings.ts'
import { DMA_PAGE_SIZE, DmaPool, type DmaBuffer } from '../src/mem/dma-pool.ts'
import type { Region } from '../src/mem/guest-memory.ts'
import { Batch } from '../src/ring/batch.ts'
import { DeviceQueue } from '../src/ring/device-queue.ts'
import type { DriverQueue, Used } from '../src/ring/driver-queue.ts'

const GATHER_LEN = 1 << 20
const EVENT_IDX = { eventIdx: true, indirect: 0 }

/** Both ends of one virtqueue in one memory. */
export class BareQueue {
  readonly #driver: DriverQueue
  readonly #device: DeviceQueue = new DeviceQueue(0)
  readonly #buffers: DmaBuffer[] = []
  readonly #batch: Batch = new Batch()
  readonly #used: Used = { head: 0, len: 0 }
  readonly #source: Uint8Array

  /** `chains` buffers of `len` bytes. */
  constructor(chains: number, len: number) {
    let base = 2 ** 32
    const pool = new DmaPool((size): Region => {
      const region = { base, size, bytes: new Uint8Array(size), address: 0, writable: true }
      base += size + DMA_PAGE_SIZE
      return region
    })
    const { queue, at } = makeRing(pool, 0, chains, EVENT_IDX)
    this.#driver = queue
    this.#device.enable(pool.memory, queue.size, at, { eventIdx: true, indirect: false })
    for (let i = 0; i < queue.size; i++) this.#buffers.push(pool.allocate(len))
    this.#source = new Uint8Array(len)
  }

  /** Chains a millisecond; those of a buffer's full length are filled first, which is the one copy. */
  rate(chains: number, len: number): number {
    const driver = this.#driver
    const copy = len === this.#source.length
    const start = performance.now()
    for (let left = chains; left > 0;) {
      for (let i = Math.min(left, driver.size); i > 0; i--, left--) {
        const buffer = this.#buffers[i - 1]!
        if (copy) buffer.bytes.set(this.#source)
        driver.addOne(buffer.address, len, false)
      }
      driver.publish()
      this.#drain()
      while (driver.takeUsed(this.#used));
    }
    return chains / (performance.now() - start)
  }

  #drain(): void {
    do {
      while (this.#device.gather(this.#batch, 'readable', GATHER_LEN) > 0)
        this.#device.complete(this.#batch, this.#batch.list.total)
      this.#device.flush()
    } while (this.#device.enableNotify())
  }
}

/** Chains a millisecond where a chain is nothing but its descriptor, its two ring entries and two indexes. */
export function touchRate(): number {
  const count = 2e6
  const mask = 127
  const desc = new Uint32Array(4 * (mask + 1))
  const avail = new Uint16Array(mask + 4)
  const used = new Uint32Array(2 * (mask + 1) + 2)
  let sum = 0
  const start = performance.now()
  for (let i = 0; i < count; i++) {
    const at = (i & mask) * 4
    desc[at] = i
    desc[at + 1] = 1
    desc[at + 2] = 64
    desc[at + 3] = 0
    avail[2 + (i & mask)] = i & mask
    Atomics.store(avail, 1, i & 0xffff)
    const head = avail[2 + (Atomics.load(avail, 1) & mask)]!
    sum += desc[head * 4]! + desc[head * 4 + 1]! + desc[head * 4 + 2]! + desc[head * 4 + 3]!
    used[(i & mask) * 2] = head
    used[(i & mask) * 2 + 1] = 0
    Atomics.store(used, 2 * (mask + 1), i)
    sum += used[(Atomics.load(used, 2 * (mask + 1)) & mask) * 2]!
  }
  const rate = count / (performance.now() - start)
  return sum < 0 ? 0 : rate // the sum is looked at, so that the loop is not thrown out
}

/** Copies of 4 KiB a millisecond, into as many buffers as a queue has. */
export function copyRate(): number {
  const len = 4096
  const count = 4e5
  const source = new Uint8Array(len)
  const target = new Uint8Array(128 * len)
  const start = performance.now()
  for (let i = 0; i < count; i++) target.set(source, (i & 127) * len)
  return count / (performance.now() - start)
}
