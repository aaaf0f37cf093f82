/** A guest on another processor that adds chains as fast as they are taken keeps nobody else waiting. */

import { describe, expect, it } from 'vitest'
import { ControlNotes } from '../../src/device/control-notes.ts'
import { ControlSender } from '../../src/device/control.ts'
import { newCounters } from '../../src/device/counters.ts'
import type { PortOwner, PortSettings } from '../../src/device/port-settings.ts'
import { Receiver } from '../../src/device/receive.ts'
import { Transmitter } from '../../src/device/transmit.ts'
import { DeviceWork, QUANTUM, Scheduler } from '../../src/device/work.ts'
import { PeerFault } from '../../src/errors.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Ledger } from '../../src/mem/ledger.ts'
import { Batch } from '../../src/ring/batch.ts'
import { DeviceQueue } from '../../src/ring/device-queue.ts'
import { SplitRing } from '../../src/ring/split-ring.ts'
import { PORT_DEFAULTS } from '../support/pair.ts'
import { MemoryChardev } from '../support/memory-chardev.ts'

const SIZE = 64
/** Descriptors of the longest chain there can be, in an indirect table that all chains share. */
const TABLE = 1023
const BASE = 0x10000
const [DESC, AVAIL, USED, INDIRECT, BUFFER] = [BASE, 0x12000, 0x13000, 0x14000, 0x18000]
/** What the last look at a ring may have cost beyond what was left. */
const OVER = 16_384

interface Chains {
  /** Bytes in each. */
  len?: number
  /** Descriptors of each; more than one: in a table. */
  descriptors?: number
  /** What they can be used for. */
  writable?: boolean
}

/** A queue whose driver makes everything available again each time the device looks. */
class RacingQueue extends DeviceQueue {
  /** Descriptors looked at. */
  looked = 0
  looks = 0
  /** The last of each ring is a good one with a writable byte. */
  lastGood = false
  readonly #ring: SplitRing

  constructor({ len = 0, descriptors = 1, writable = false }: Chains = {}) {
    super(5)
    const memory = new GuestMemory()
    memory.add({ base: BASE, size: 0x10000, bytes: new Uint8Array(0x10000), address: 0, writable: true })
    const at = { desc: DESC, avail: AVAIL, used: USED }
    const ring = (this.#ring = new SplitRing(memory, SIZE, at))
    const table = memory.region(INDIRECT)!.bytes
    const words = new Uint32Array(table.buffer, INDIRECT - BASE, TABLE * 4)
    const flags = writable ? 2 : 0
    for (let i = 0; i < descriptors; i++) {
      const more = i + 1 < descriptors
      words.set([BUFFER, 0, len, flags | (more ? 1 : 0) | ((more ? i + 1 : 0) << 16)], i * 4)
    }
    for (let i = 0; i < SIZE; i++) {
      if (descriptors > 1) ring.desc.set([INDIRECT, 0, descriptors * 16, 4], i * 4)
      else ring.desc.set([BUFFER, 0, len, flags], i * 4)
      ring.setAvailRing(i, i)
    }
    this.enable(memory, SIZE, at, { eventIdx: false, indirect: true })
  }

  /** One buffer of a byte behind all that is useless. */
  makeLastGood(): void {
    this.#ring.desc.set([BUFFER, 0, 1, 2], (SIZE - 1) * 4)
  }

  override gather(...args: Parameters<DeviceQueue['gather']>): number {
    if (++this.looks > 1_000_000) throw new Error('it never ends')
    this.#ring.publishAvailIdx((this.consumed + SIZE) & 0xffff)
    const total = super.gather(...args)
    this.looked += args[0].list.looked
    return total
  }
}

function scene() {
  const later: (() => void)[] = []
  const served: number[] = []
  const work = new DeviceWork(new Scheduler((fn) => void later.push(fn)), 8, (queue) => void served.push(queue))
  const owner: PortOwner = {
    batch: new Batch(),
    settleMs: 0,
    soon: undefined,
    work,
    interrupt() {},
    fault(_queue, error) {
      throw error
    },
    hostOpen() {},
    resized() {},
    warn() {},
    after: () => () => {},
    event() {},
  }
  /** The next turn of the event loop. */
  const turn = (): void => {
    for (const fn of later.splice(0)) fn()
  }
  return { owner, work, served, turn }
}

const settings: PortSettings = { id: 1, ...PORT_DEFAULTS }
const end = { setConnected() {}, readable() {}, writable() {}, resized() {}, warn() {} }

/** What a queue is full of, and what the device makes of it. */
const FULL: Readonly<Record<string, Chains>> = {
  'chains without a byte': {},
  'chains of a byte': { len: 1 },
  'chains of a page': { len: 4096 },
  'chains that share a table': { len: 1, descriptors: TABLE },
  'useless chains that share a table': { len: 1, descriptors: TABLE, writable: true },
  'empty descriptors in a shared table': { len: 0, descriptors: TABLE },
}

describe('one turn ends', () => {
  function sending(queue: RacingQueue, connected: boolean) {
    const all = scene()
    const transmitter = new Transmitter(queue, settings, newCounters(), all.owner)
    transmitter.chardev = new MemoryChardev(end, connected)
    return { ...all, transmitter }
  }

  it.each(Object.entries(FULL))('a transmitq of %s', (_, chains) => {
    const queue = new RacingQueue(chains)
    const { transmitter, work } = sending(queue, true)
    transmitter.setReady(true)
    expect(work.isDeferred(queue.index)).toBe(true)
    expect(queue.looked).toBeLessThan(QUANTUM + OVER)
  })

  it.each(Object.entries(FULL))('a transmitq of %s for nobody', (_, chains) => {
    const queue = new RacingQueue(chains)
    const { transmitter, work } = sending(queue, false)
    transmitter.setDropping(true)
    transmitter.setReady(true)
    expect(work.isDeferred(queue.index)).toBe(true)
    expect(queue.looked).toBeLessThan(QUANTUM + OVER)
  })

  it.each(Object.entries(FULL))('a transmitq of %s whose port is removed', (_, chains) => {
    const queue = new RacingQueue(chains)
    const { transmitter } = sending(queue, true)
    transmitter.setReady(true)
    queue.looked = 0
    transmitter.remove(QUANTUM)
    expect(queue.looked).toBeLessThan(2 * (QUANTUM + OVER))
    // What a driver of manners has in its ring is dealt with.
    if (chains.descriptors === undefined) expect(queue.consumed).toBeGreaterThanOrEqual(SIZE)
  })

  it('a notification does not go round the next turn', () => {
    const queue = new RacingQueue({ descriptors: TABLE })
    const { transmitter, served, turn } = sending(queue, true)
    transmitter.setReady(true)
    const { looked } = queue
    for (let i = 0; i < 1000; i++) transmitter.run()
    transmitter.setDropping(true)
    expect(queue.looked).toBe(looked)
    turn()
    expect(served).toEqual([queue.index])
    transmitter.run()
    expect(queue.looked).toBeGreaterThan(looked)
  })

  it.each([
    ['without a writable byte', {}],
    ['that share a table', { len: 1, descriptors: TABLE }],
  ])('a receiveq of chains %s', (_, chains) => {
    const { owner, work } = scene()
    const queue = new RacingQueue(chains)
    const receiver = new Receiver(queue, newCounters(), owner)
    receiver.chardev = new MemoryChardev(end)
    receiver.setOpen(true)
    expect(work.isDeferred(queue.index)).toBe(true)
    const { looked } = queue
    expect(looked).toBeLessThan(QUANTUM + OVER)
    for (let i = 0; i < 1000; i++) receiver.run()
    expect(queue.looked).toBe(looked)
  })

  it('a receiveq with one good byte behind all that is useless, for each byte that the host has sent', () => {
    const { owner, work } = scene()
    const queue = new RacingQueue({ len: 1, descriptors: TABLE })
    queue.makeLastGood()
    const receiver = new Receiver(queue, newCounters(), owner)
    const chardev = (receiver.chardev = new MemoryChardev(end))
    chardev.send(new Uint8Array(200_000))
    receiver.setOpen(true)
    expect(work.isDeferred(queue.index)).toBe(true)
    expect(chardev.reading).toBe(false)
    expect(queue.looked).toBeLessThan(QUANTUM + OVER)
  })

  it.each([
    ['without a writable byte', {}],
    ['that share a table', { len: 1, descriptors: TABLE }],
  ])('control receive buffers %s, until they are too many', (_, chains) => {
    const notes = new ControlNotes(31, new Ledger())
    const { work, turn } = scene()
    const queue = new RacingQueue(chains)
    const sender = new ControlSender(queue, new Batch(), notes, 'cols-rows', work, () => () => {})
    sender.add(1, false, undefined)
    sender.deviceReady(true)
    expect(() => {
      for (let i = 0; i < 2048; i++) {
        const before = queue.looked
        sender.pump(() => {})
        expect(work.isDeferred(queue.index)).toBe(true)
        expect(queue.looked - before).toBeLessThan(QUANTUM + OVER)
        turn()
      }
    }).toThrow(PeerFault)
  })
})

describe('the scheduler', () => {
  /** Devices of which some have queues that never end; served queues in order, by turn. */
  function devices(count: number) {
    const later: (() => void)[] = []
    const scheduler = new Scheduler((fn) => void later.push(fn))
    const log: string[] = []
    const all = Array.from({ length: count }, (_, device) => {
      const work: DeviceWork = new DeviceWork(scheduler, 511, (queue) => {
        log.push(`${device}.${queue}`)
        busy(work, queue)
      })
      return work
    })
    const busy = (work: DeviceWork, queue: number): void => {
      if (work.charge(QUANTUM, work.quantum) <= 0) work.deferQueue(queue)
    }
    const turn = (): string[] => {
      log.length = 0
      for (const fn of later.splice(0)) fn()
      return [...log]
    }
    return { all, busy, turn, later }
  }

  it('511 queues that never end share what one device has in a turn, one after the other', () => {
    const { all, busy, turn } = devices(1)
    const work = all[0]!
    for (let queue = 0; queue < 511; queue++) {
      if (work.left > 0) busy(work, queue)
      else work.deferQueue(queue)
    }
    const served: string[] = []
    for (let i = 0; served.length < 511; i++) {
      const some = turn()
      expect(some.length).toBeLessThanOrEqual(4)
      expect(some.length).toBeGreaterThan(0)
      expect(i).toBeLessThan(511)
      served.push(...some)
    }
    expect(new Set(served.slice(0, 511)).size).toBe(511)
  })

  it('a device with little to do is served in the next turn, whatever the others do', () => {
    const { all, busy, turn } = devices(3)
    for (const work of all.slice(0, 2)) for (let queue = 0; queue < 100; queue++) work.deferQueue(queue)
    turn()
    const quiet = all[2]!
    busy(quiet, 7)
    expect(quiet.isDeferred(7)).toBe(true)
    expect(turn()).toContain('2.7')
  })

  it('nothing is scheduled where little is done', () => {
    const { all, later } = devices(1)
    for (let i = 0; i < 20; i++) expect(all[0]!.charge(1000, all[0]!.quantum)).toBeGreaterThan(0)
    expect(later.length).toBe(0)
  })
})
