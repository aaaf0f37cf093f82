/** A guest on another processor that adds chains as fast as they are taken keeps nobody else waiting. */

import { describe, expect, it } from 'vitest'
import { ControlNotes } from '../../src/device/control-notes.ts'
import { ControlSender } from '../../src/device/control.ts'
import { newCounters } from '../../src/device/counters.ts'
import type { PortOwner, PortSettings } from '../../src/device/port-settings.ts'
import { Receiver } from '../../src/device/receive.ts'
import { Transmitter } from '../../src/device/transmit.ts'
import { PeerFault } from '../../src/errors.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Ledger } from '../../src/mem/ledger.ts'
import { Batch, DeviceQueue } from '../../src/ring/device-queue.ts'
import { SplitRing } from '../../src/ring/split-ring.ts'
import { PORT_DEFAULTS } from '../support/pair.ts'
import { MemoryChardev } from '../support/memory-chardev.ts'

const SIZE = 64

/** A queue whose driver makes everything available again each time the device looks; chains have `len` bytes. */
class RacingQueue extends DeviceQueue {
  looks = 0
  readonly #ring: SplitRing

  constructor(len: number) {
    super(5)
    const memory = new GuestMemory()
    memory.add({ base: 0x10000, size: 0x10000, bytes: new Uint8Array(0x10000), address: 0, writable: true })
    const at = { desc: 0x10000, avail: 0x12000, used: 0x13000 }
    this.#ring = new SplitRing(memory, SIZE, at)
    for (let i = 0; i < SIZE; i++) {
      this.#ring.desc.set([0x18000, 0, len, 0], i * 4)
      this.#ring.setAvailRing(i, i)
    }
    this.enable(memory, SIZE, at, { eventIdx: false, indirect: false })
  }

  override gather(...args: Parameters<DeviceQueue['gather']>): number {
    if (++this.looks > 1_000_000) throw new Error('it never ends')
    this.#ring.publishAvailIdx((this.consumed + SIZE) & 0xffff)
    return super.gather(...args)
  }
}

describe('one turn ends', () => {
  const settings: PortSettings = { id: 1, ...PORT_DEFAULTS }
  function owner() {
    let deferred = 0
    const it: PortOwner = {
      batch: new Batch(),
      settleMs: 0,
      soon: undefined,
      interrupt() {},
      fault(_queue, error) {
        throw error
      },
      hostOpen() {},
      resized() {},
      warn() {},
      defer: () => void deferred++,
      after: () => () => {},
      event() {},
    }
    return { it, deferred: () => deferred }
  }
  const end = { setConnected() {}, readable() {}, writable() {}, resized() {}, warn() {} }

  for (const len of [0, 1, 4096])
    it(`transmitq chains of ${len} bytes`, () => {
      const { it: self, deferred } = owner()
      const transmitter = new Transmitter(new RacingQueue(len), settings, newCounters(), self)
      transmitter.chardev = new MemoryChardev(end)
      transmitter.setReady(true)
      expect(deferred()).toBe(1)
      transmitter.discard()
    })

  it('receiveq chains without a writable byte', () => {
    const { it: self, deferred } = owner()
    const receiver = new Receiver(new RacingQueue(0), newCounters(), self)
    receiver.chardev = new MemoryChardev(end)
    receiver.setOpen(true)
    expect(deferred()).toBe(1)
  })

  it('control receive buffers without a writable byte', () => {
    const notes = new ControlNotes(31, new Ledger())
    const sender = new ControlSender(new RacingQueue(0), new Batch(), notes, 'cols-rows', () => () => {})
    sender.add(1, false, undefined)
    sender.deviceReady(true)
    expect(() => sender.pump(() => {})).toThrow(PeerFault)
  })
})
