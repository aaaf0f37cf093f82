/** What a case for our driver has in its hands: the driver in front of a device that says what the case wants. */

import { setTimeout as sleep } from 'node:timers/promises'
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT } from '../../src/spec/split.ts'
import { fakePair, type FakePair } from '../../test/support/fake-console.ts'
import { MemoryChardev } from '../../test/support/memory-chardev.ts'
import { check, Finding } from '../case.ts'

export const ADD = 1
export const REMOVE = 2
export const CONSOLE = 4
export const RESIZE = 5
export const OPEN = 6
export const NAME = 7
export const COMMON_BAR = 4
/** Where the device configuration is in that BAR. */
export const DEVICE_CONFIG = 0x2000
export const ISR = 0x1000
export const NOTIFY = 0x3000

export interface Descriptor {
  index: number
  address: number
  len: number
  flags: number
  next: number
  /** Of an indirect table. */
  inside: boolean
}

export class DriverTest {
  /** A driver that has not started yet. */
  make(...args: Parameters<typeof fakePair>): FakePair {
    return fakePair(...args)
  }

  started(...args: Parameters<typeof fakePair>): FakePair {
    const pair = fakePair(...args)
    pair.driver.start()
    if (pair.fake.rings[3]) pair.fake.listen()
    return pair
  }

  /** With port 1 open on both ends. */
  open(...args: Parameters<typeof fakePair>): FakePair & { chardev: MemoryChardev } {
    const pair = this.started(...args)
    pair.fake.say(1, ADD, 1)
    pair.fake.listen()
    pair.fake.say(1, OPEN, 1)
    const chardev = pair.driver.port(1)?.attach((end) => new MemoryChardev(end)) as MemoryChardev | undefined
    if (!chardev) throw new Finding('the driver has no port 1 after DEVICE_ADD')
    pair.fake.listen()
    return { ...pair, chardev }
  }

  async settle(): Promise<void> {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    const end = Date.now() + 5000
    while (!condition()) {
      if (Date.now() > end) throw new Finding(`waited 5 s in vain for ${what}`)
      await sleep(1)
    }
  }

  /** The chain that starts at a head, as the device would walk it. */
  chain({ fake, machine }: FakePair, queue: number, head: number): Descriptor[] {
    const ring = fake.rings[queue]!
    const list: Descriptor[] = []
    let table = ring.desc
    let inside = false
    for (let index = head, n = 0; ; n++) {
      check(n <= ring.size + 1024, `the chain at ${head} of queue ${queue} has no end`)
      check(index * 4 < table.length, `descriptor ${index} is past its table`)
      const address = table[4 * index + 1]! * 2 ** 32 + table[4 * index]!
      const [len, word] = [table[4 * index + 2]!, table[4 * index + 3]!]
      const [flags, next] = [word & 0xffff, word >>> 16]
      list.push({ index, address, len, flags, next, inside })
      if (flags & VIRTQ_DESC_F_INDIRECT) {
        check(!inside, 'an indirect table in an indirect table')
        const region = machine.memory.region(address)!
        table = new Uint32Array(region.bytes.buffer, region.bytes.byteOffset + address - region.base, len / 4)
        inside = true
        index = 0
      } else if (flags & VIRTQ_DESC_F_NEXT) index = next
      else return list
    }
  }

  /** All chains that are available in a queue, without taking them. */
  available(pair: FakePair, queue: number): Descriptor[][] {
    const ring = pair.fake.rings[queue]!
    const count = pair.fake.available(queue)
    return Array.from({ length: count }, (_, i) => this.chain(pair, queue, ring.availRing(ring.availIdx() - count + i)))
  }
}
