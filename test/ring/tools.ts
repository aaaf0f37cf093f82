/** One ring in plain memory, with both ends on it. */

import { GuestMemory, type Region } from '../../src/mem/guest-memory.ts'
import { DeviceQueue } from '../../src/ring/device-queue.ts'
import { DriverQueue, type DriverQueueOptions } from '../../src/ring/driver-queue.ts'
import { SplitRing } from '../../src/ring/split-ring.ts'

export const BASE = 2 ** 32
export const DATA = BASE + 0x100000

export class Bench {
  readonly memory: GuestMemory = new GuestMemory()
  readonly region: Region
  readonly size: number
  readonly at: { desc: number; avail: number; used: number }
  readonly ring: SplitRing

  constructor(size = 8, ringLen = 0x100000, dataLen = 0x100000) {
    this.size = size
    this.region = { base: BASE, size: ringLen, bytes: new Uint8Array(ringLen), address: 0, writable: true }
    this.memory.add(this.region)
    this.memory.add({ base: DATA, size: dataLen, bytes: new Uint8Array(dataLen), address: 0, writable: true })
    this.at = { desc: BASE, avail: BASE + 0x80000, used: BASE + 0xa0000 }
    this.ring = new SplitRing(this.memory, size, this.at)
  }

  driver(options: Partial<DriverQueueOptions> & { tables?: number } = {}): DriverQueue {
    const address = BASE + 0xc0000
    const entries = options.tables ?? 0
    const bytes = this.region.bytes.subarray(0xc0000, 0xc0000 + this.size * entries * 16)
    const indirect = entries > 0 ? { address, bytes, entries } : undefined
    return new DriverQueue(7, this.memory, this.size, this.at, { eventIdx: false, indirect, ...options })
  }

  device(eventIdx = false, indirect = false): DeviceQueue {
    const queue = new DeviceQueue(7)
    queue.enable(this.memory, this.size, this.at, { eventIdx, indirect })
    return queue
  }

  /** Writes descriptor i of the table at `table`. */
  desc(i: number, address: number, len: number, flags = 0, next = 0, table: number = this.at.desc): void {
    const view = new DataView(this.region.bytes.buffer)
    const at = table - BASE + 16 * i
    view.setUint32(at, address % 2 ** 32, true)
    view.setUint32(at + 4, Math.floor(address / 2 ** 32), true)
    view.setUint32(at + 8, len, true)
    view.setUint16(at + 12, flags, true)
    view.setUint16(at + 14, next, true)
  }
}
