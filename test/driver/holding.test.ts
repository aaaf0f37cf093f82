/**
 * What the driver half holds back from the device while there is more to come, and that it does so for a moment only.
 */

import { beforeEach, describe, expect, it } from 'vitest'
import type { Chardev } from '../../src/chardev/chardev.ts'
import { makeRing } from '../../src/driver/driver-rings.ts'
import { newDriverCounters, type QueueOwner } from '../../src/driver/port-settings.ts'
import { Receiver } from '../../src/driver/receive.ts'
import { Transmitter } from '../../src/driver/transmit.ts'
import { Turn } from '../../src/driver/turn.ts'
import { DmaPool } from '../../src/mem/dma-pool.ts'
import { Iovec } from '../../src/mem/iovec.ts'
import { Batch } from '../../src/ring/batch.ts'
import { DeviceQueue } from '../../src/ring/device-queue.ts'
import type { DriverQueue } from '../../src/ring/driver-queue.ts'

const BASE = 2 ** 32
const SIZE = 32
const LEN = 4096

/** A queue with a device at its other end, and a program in front of it that writes and reads when the test says so. */
class Scene implements Partial<Chardev>, QueueOwner {
  readonly list = new Iovec()
  readonly queue: DriverQueue
  readonly pool: DmaPool
  /** Times the device was notified. */
  told = 0
  /** Bytes that the program has written, and that it would read. */
  written = 0
  wanted = 0
  read = 0
  readonly #device = new DeviceQueue(1)
  readonly #batch = new Batch()

  constructor() {
    let base = BASE
    this.pool = new DmaPool((size) => {
      const region = { base, size, bytes: new Uint8Array(size), address: 0, writable: true }
      base += size
      return region
    })
    const ring = makeRing(this.pool, 1, SIZE, { eventIdx: true, indirect: 8 })
    this.queue = ring.queue
    this.#device.enable(this.pool.memory, SIZE, ring.at, { eventIdx: true, indirect: true })
  }

  /** The device takes, or fills, all that it was given. */
  deviceRuns(direction: 'readable' | 'writable'): number {
    const { list } = this.#batch
    this.#device.gather(this.#batch, direction, 1 << 20)
    const { total } = list
    this.#device.complete(this.#batch, total)
    this.#device.flush()
    this.#device.enableNotify()
    return total
  }

  // --- Chardev
  readv(list: Iovec): number {
    const bytes = Math.min(this.written, list.total)
    this.written -= bytes
    return bytes
  }
  writev(list: Iovec): number {
    const bytes = Math.min(this.wanted, list.total)
    this.wanted -= bytes
    this.read += bytes
    return bytes
  }
  setReading(): void {}

  // --- QueueOwner
  notify(): void {
    this.told++
  }
  fault(_queue: DriverQueue, error: unknown): void {
    throw error
  }
  readonly turn = new Turn(() => {})
}

describe('what programs write', () => {
  const BUFFERS = 16
  const LONG = 64 << 10
  let scene: Scene
  let transmitter: Transmitter

  beforeEach(() => {
    scene = new Scene()
    const settings = { len: LONG, count: BUFFERS, patience: 0 }
    transmitter = new Transmitter(scene.queue, scene.pool, settings, newDriverCounters(), scene)
    transmitter.chardev = scene as unknown as Chardev
    transmitter.setOpen(true)
  })

  /** Writes so many times; the device is quick, and wants to hear of the next. Returns how many are held back. */
  const write = (times: number, bytes = LONG): number => {
    for (let i = 0; i < times; i++) {
      scene.written = bytes
      transmitter.run()
      scene.deviceRuns('readable')
    }
    return scene.queue.staged
  }

  it('is told of at once where nobody comes by', () => {
    expect([write(10), scene.told]).toEqual([0, 10])
  })

  it('waits for more where long writes follow each other, and for half of the buffers at most', () => {
    transmitter.poll()
    expect([write(2), scene.told]).toEqual([0, 2])
    expect([write(7), scene.told]).toEqual([7, 2])
    expect([write(1), scene.told]).toEqual([0, 3])
  })

  it('goes with a short one, at once', () => {
    transmitter.poll()
    expect(write(4)).toBe(2)
    expect([write(1, 1), scene.told]).toEqual([0, 3])
    expect([write(1), scene.told]).toEqual([0, 4])
  })

  it('does not wait longer than a few looks that found nothing', () => {
    transmitter.poll()
    expect(write(5)).toBe(3)
    let looks = 0
    for (; scene.queue.staged > 0 && looks < 100; looks++) {
      transmitter.run()
      transmitter.poll()
    }
    expect([looks, scene.told]).toEqual([17, 3])
    scene.deviceRuns('readable')
    // The next one is the first of a row.
    expect([write(1), scene.told]).toEqual([0, 4])
  })

  it('does not wait when who comes by goes to sleep, nor after that', () => {
    transmitter.poll()
    expect(write(5)).toBe(3)
    transmitter.rest()
    expect([scene.queue.staged, scene.told]).toEqual([0, 3])
    scene.deviceRuns('readable')
    expect([write(5), scene.told]).toEqual([0, 8])
  })

  it('does not wait where there is no other buffer', () => {
    transmitter.poll()
    for (let i = 0; i < BUFFERS; i++) {
      scene.written = LONG
      transmitter.run()
    }
    scene.written = LONG
    transmitter.run()
    expect([scene.queue.staged, scene.queue.inFlight]).toEqual([0, BUFFERS])
  })
})

describe('what the host writes', () => {
  const BUFFERS = 32

  it('has its buffers back at once where all was read, and together while more waits to be read', () => {
    const scene = new Scene()
    const settings = { len: LEN, most: BUFFERS, patience: 0 }
    const receiver = new Receiver(scene.queue, scene.pool, settings, newDriverCounters(), scene)
    receiver.chardev = scene as unknown as Chardev
    receiver.fill(BUFFERS)
    receiver.setOpen(true)
    receiver.poll()
    expect(scene.deviceRuns('writable')).toBe(BUFFERS * LEN)
    const before = scene.told
    const staged: number[] = []
    for (let i = 0; i < 8; i++) {
      scene.wanted = 4 * LEN
      receiver.run()
      staged.push(scene.queue.staged)
    }
    // Of 32 at 22 and more; and when nothing waits any more.
    expect(staged).toEqual([4, 8, 12, 16, 20, 0, 4, 0])
    expect(scene.told - before).toBe(1)
    expect(scene.read).toBe(BUFFERS * LEN)
    // Nobody comes by, or not any more: at once.
    expect(scene.deviceRuns('writable')).toBe(BUFFERS * LEN)
    receiver.poll()
    scene.wanted = LEN
    receiver.run()
    expect(scene.queue.staged).toBe(1)
    receiver.rest()
    expect(scene.queue.staged).toBe(0)
    scene.wanted = LEN
    receiver.run()
    expect(scene.queue.staged).toBe(0)
  })
})
