/**
 * A queue that another process goes on with: from its position, whatever was published, and from the kernel's receipts.
 */
import { describe, expect, it } from 'vitest'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { MMSG, NO_RECEIPT, Receipts } from '../../src/mem/receipts.ts'
import { Batch } from '../../src/ring/batch.ts'
import { DeviceQueue } from '../../src/ring/device-queue.ts'
import { replay } from '../../src/ring/replay.ts'
import { DriverQueue, type Used } from '../../src/ring/driver-queue.ts'

const SIZE = 8
const AT = { desc: 0, avail: 0x1000, used: 0x2000 }
const FEATURES = { eventIdx: false, indirect: false }

function setup(): { memory: GuestMemory; driver: DriverQueue; positions: Float64Array; queue: () => DeviceQueue } {
  const memory = new GuestMemory()
  memory.add({ base: 0, size: 0x10000, bytes: new Uint8Array(0x10000), address: 0, writable: true })
  const driver = new DriverQueue(0, memory, SIZE, AT, { eventIdx: false })
  const positions = new Float64Array(1)
  return { memory, driver, positions, queue: () => new DeviceQueue(0, { positions, receipts: undefined }) }
}

describe('resume', () => {
  it('goes on in the middle of a chain, and publishes what was staged', () => {
    const { memory, driver, queue } = setup()
    for (let i = 0; i < 3; i++) driver.add([{ address: 0x4000 + i * 256, len: 100 }], [])
    driver.publish()
    const first = queue()
    const batch = new Batch()
    first.enable(memory, SIZE, AT, FEATURES)
    first.gather(batch, 'readable', 1000)
    first.complete(batch, 130) // one chain and a part; killed before flush
    const second = queue()
    second.resume(memory, SIZE, AT, FEATURES)
    expect(second.staged).toBe(1)
    second.flush()
    expect(second.gather(batch, 'readable', 1000)).toBe(170)
    second.complete(batch, 170)
    second.flush()
    expect(second.staged).toBe(0)
    const used: Used = { head: 0, len: 0 }
    for (let i = 0; i < 3; i++) expect(driver.takeUsed(used)).toBe(true)
    expect(driver.takeUsed(used)).toBe(false)
  })

  it('replays what moved and was not noted', () => {
    const { memory, driver, positions, queue } = setup()
    for (let i = 0; i < 3; i++) driver.add([{ address: 0x4000 + i * 256, len: 100 }], [])
    driver.publish()
    const first = queue()
    first.enable(memory, SIZE, AT, FEATURES)
    const bytes = new Uint8Array(new ArrayBuffer(Receipts.LEN))
    const receipts = new Receipts(bytes, 1, positions)
    receipts.arm(0, 300)
    expect(receipts.unrecorded()).toBeUndefined()
    receipts.words[MMSG.len] = 250 // the kernel
    expect(receipts.unrecorded()).toEqual({ queue: 0, bytes: 250, offered: 300 })
    const second = queue()
    second.resume(memory, SIZE, AT, FEATURES)
    expect(replay(second, new Batch(), 'readable', 250)).toBe(250)
    // The position has moved: a third process does not do it again.
    expect(receipts.unrecorded()).toBeUndefined()
    expect(second.gather(new Batch(), 'readable', 1000)).toBe(50)
  })

  it('a call without a receipt is one that may have happened', () => {
    const receipts = new Receipts(new Uint8Array(new ArrayBuffer(Receipts.LEN)), 1, new Float64Array(1))
    receipts.arm(0, 77)
    receipts.unknown(Infinity)
    expect(receipts.unrecorded()).toEqual({ queue: 0, bytes: undefined, offered: 77 })
    receipts.known(0)
    expect(receipts.len).toBe(NO_RECEIPT)
    expect(receipts.unrecorded()).toBeUndefined()
  })

  it('a used index that the guest has spoilt is taken as it is', () => {
    const { memory, positions, queue } = setup()
    positions[0] = 3 * 2 ** 33
    new DataView(memory.regions[0]!.bytes.buffer).setUint16(AT.used + 2, 4000, true)
    new DataView(memory.regions[0]!.bytes.buffer).setUint16(AT.avail + 2, 4000, true)
    const second = queue()
    second.resume(memory, SIZE, AT, FEATURES)
    expect(second.staged).toBe(0)
    expect(second.gather(new Batch(), 'readable', 10)).toBe(0)
  })
})
