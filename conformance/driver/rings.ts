/** What our driver puts into its rings, and what it takes out of them (§2.7, §5.3.6.1). */

import { DRIVER_FEATURES } from '../../src/driver/console-options.ts'
import { roundUp } from '../../src/mem/dma-pool.ts'
import { needEvent } from '../../src/ring/event-idx.ts'
import { portOfQueue, receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../../src/spec/features.ts'
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/spec/split.ts'
import type { FakePair } from '../../test/support/fake-console.ts'
import { check, same, type Case } from '../case.ts'
import { ADD, COMMON_BAR, NOTIFY, OPEN, REMOVE, type DriverTest } from './test.ts'

const BASIC = VIRTIO_F_VERSION_1 | 3n
const TX = transmitqOf(1)
const RX = receiveqOf(1)
const DATA = Buffer.alloc(100_000, 'the driver says something ')
const PACKED = 'our driver does not accept RING_PACKED'

/** A driver that has sent a lot, with these features of the ring. */
function sent(test: DriverTest, features: bigint): ReturnType<DriverTest['open']> {
  const pair = test.open((fake) => (fake.features = BASIC | features), { transmitLen: 4096 })
  pair.chardev.send(DATA)
  // Once all buffers are back, several make one chain.
  while (pair.fake.available(TX) > 0) pair.fake.use(TX, pair.fake.take(TX), 0, pair.fake.available(TX) === 0)
  pair.chardev.send(DATA)
  check(pair.fake.available(TX) > 0, 'nothing was sent')
  return pair
}

const notified = ({ accesses }: FakePair, queue: number): number =>
  accesses.filter(({ kind, bar, offset }) => kind === 'write' && bar === COMMON_BAR && offset === NOTIFY + 4 * queue)
    .length

export const RING_CASES: readonly Case<DriverTest>[] = [
  {
    id: 'R24',
    run(test) {
      const pair = test.open()
      const { fake, chardev } = pair
      const before = JSON.stringify(test.available(pair, RX))
      const idx = fake.rings[RX]!.availIdx()
      chardev.setConnected(false)
      fake.say(1, OPEN, 0)
      fake.say(1, REMOVE, 1)
      same(JSON.stringify(test.available(pair, RX)), before, 'buffers of a live queue after close and removal')
      same(fake.rings[RX]!.availIdx(), idx, 'avail.idx')
    },
  },
  {
    id: 'R28',
    run(test) {
      for (const features of [0n, VIRTIO_RING_F_INDIRECT_DESC]) {
        const pair = sent(test, features)
        for (const queue of [2, 3, RX, TX])
          for (const chain of test.available(pair, queue)) {
            const kinds = chain
              .filter(({ flags }) => !(flags & VIRTQ_DESC_F_INDIRECT))
              .map(({ flags }) => flags & VIRTQ_DESC_F_WRITE)
            same(
              kinds,
              kinds.toSorted((a, b) => a - b),
              'WRITE flags along a chain',
            )
          }
      }
    },
  },
  {
    id: 'R30',
    run(test) {
      const pair = sent(test, 0n)
      for (const queue of [RX, TX])
        for (const chain of test.available(pair, queue)) {
          const total = chain.reduce((sum, { len }) => sum + len, 0)
          check(total > 0 && total <= 2 ** 32, `a chain of ${total} bytes`)
          same(new Set(chain.map(({ index }) => index)).size, chain.length, 'descriptors of a chain, each once')
        }
    },
  },
  {
    id: 'R31',
    run(test) {
      const flat = sent(test, 0n)
      for (const queue of [2, 3, RX, TX])
        for (const { flags } of test.available(flat, queue).flat())
          check(!(flags & VIRTQ_DESC_F_INDIRECT), 'INDIRECT, which was not negotiated')
      const pair = sent(test, VIRTIO_RING_F_INDIRECT_DESC)
      const chains = test.available(pair, TX)
      check(
        chains.flat().some(({ flags }) => flags & VIRTQ_DESC_F_INDIRECT),
        'INDIRECT was negotiated and is not used',
      )
      for (const chain of chains) {
        for (const { flags, inside } of chain)
          if (flags & VIRTQ_DESC_F_INDIRECT)
            check(!inside && !(flags & VIRTQ_DESC_F_NEXT), 'INDIRECT in a table, or with NEXT')
        check(chain.length - 1 <= pair.fake.places[TX]!.size, `a table of ${chain.length - 1} descriptors`)
      }
    },
  },
  {
    id: 'R34',
    run(test) {
      const pair = test.open()
      const { fake, chardev, driver } = pair
      const last = new Map<number, number>()
      const look = (): void => {
        for (const queue of [2, 3, RX, TX]) {
          const idx = fake.rings[queue]!.availIdx()
          check(
            ((idx - (last.get(queue) ?? idx)) & 0xffff) < 0x8000,
            `avail.idx of queue ${queue} went backwards to ${idx}`,
          )
          last.set(queue, idx)
        }
      }
      for (let i = 0; i < 30; i++) {
        chardev.send(DATA.subarray(0, 3000))
        look()
        while (fake.available(TX) > 0) fake.use(TX, fake.take(TX), 0)
        look()
        fake.send(RX, DATA.subarray(0, 100))
        look()
        fake.say(1, OPEN, i & 1)
        look()
      }
      fake.say(1, REMOVE, 1)
      look()
      check(driver.running, 'the driver has stopped')
    },
  },
  {
    id: 'R35',
    run(test) {
      for (const [features, allowed] of [
        [0n, [0, 1]],
        [VIRTIO_RING_F_EVENT_IDX, [0]],
      ] as const) {
        const { fake } = sent(test, features)
        while (fake.available(TX) > 0) fake.use(TX, fake.take(TX), 0)
        for (const queue of [2, 3, RX, TX]) {
          const flags = fake.rings[queue]!.availFlags()
          check((allowed as readonly number[]).includes(flags), `avail.flags of queue ${queue} is ${flags}`)
        }
      }
    },
  },
  {
    id: 'R36',
    async run(test) {
      const { fake, driver, chardev } = test.open()
      for (let i = 0; i < 100; i++) {
        for (let queue = 0; queue < 10; queue++) fake.host.interruptQueue(queue)
        fake.host.configChanged()
      }
      await test.settle()
      check(driver.running && driver.faults === 0, 'the driver stops at interrupts about nothing')
      fake.send(RX, Buffer.from('after them'))
      same(chardev.text, 'after them', 'what came')
    },
  },
  {
    id: 'R41',
    run(test) {
      const { fake, chardev } = test.open()
      fake.send(RX, Buffer.from('four, and more'), 4)
      same(chardev.text, 'four', 'what a program got of a buffer with len 4')
    },
  },
  {
    id: 'R43',
    run(test) {
      const plain = test.open((fake) => (fake.features = BASIC), { transmitLen: 64 })
      const say = (pair: ReturnType<DriverTest['open']>, what: string, expected: boolean): void => {
        const before = notified(pair, TX)
        pair.chardev.send('x')
        same(notified(pair, TX) - before, expected ? 1 : 0, `notifications ${what}`)
      }
      const flags = plain.fake.rings[TX]!
      flags.setUsedFlags(1)
      flags.setAvailEvent(flags.availIdx())
      say(plain, 'with used.flags 1, whatever avail_event says', false)
      flags.setUsedFlags(0)
      flags.setAvailEvent(0x7000)
      say(plain, 'with used.flags 0, whatever avail_event says', true)
      const events = test.open((fake) => (fake.features = BASIC | VIRTIO_RING_F_EVENT_IDX), { transmitLen: 64 })
      const ring = events.fake.rings[TX]!
      ring.setUsedFlags(1)
      ring.setAvailEvent(ring.availIdx())
      say(events, 'with avail_event at the entry, whatever used.flags says', true)
      ring.setUsedFlags(0)
      ring.setAvailEvent(ring.availIdx() + 1)
      say(events, 'with avail_event one further', false)
    },
  },
  ...['R46', 'R47'].map((id) => ({
    id,
    na: 'the device runs in the thread of the driver; test/ring watches the order of stores',
  })),
  ...['R49', 'R54', 'R55', 'R57', 'R59', 'R60', 'R62'].map((id) => ({ id, na: PACKED })),
  {
    id: 'R107',
    run(test) {
      const pair = sent(test, VIRTIO_RING_F_INDIRECT_DESC)
      for (const [queue, write] of [
        [2, true],
        [RX, true],
        [3, false],
        [TX, false],
      ] as const)
        for (const { flags } of test.available(pair, queue).flat())
          if (!(flags & VIRTQ_DESC_F_INDIRECT))
            same((flags & VIRTQ_DESC_F_WRITE) !== 0, write, `WRITE in queue ${queue}`)
    },
  },
  {
    id: 'R117',
    run(test) {
      const { fake } = test.started()
      for (const id of [1, 2, 3]) {
        fake.say(id, ADD, 1)
        check(fake.available(receiveqOf(id)) >= 1, `port ${id} has no buffer once it was added`)
      }
    },
  },
  {
    id: 'S10',
    run() {
      for (const [old, now] of [
        [0, 1],
        [0, 3],
        [65_533, 2],
        [65_535, 0],
        [100, 100],
        [0, 65_535],
      ] as const)
        for (let event = 0; event < 65_536; event++) {
          const count = (now - old) & 0xffff
          const expected = ((event - old) & 0xffff) < count
          check(needEvent(event, now, old) === expected, `from ${old} to ${now}, event ${event}: ${!expected}`)
        }
    },
  },
  {
    id: 'S11',
    run(test) {
      for (const unit of [1, 2, 4, 16, 4096])
        for (const n of [0, 1, unit - 1, unit, unit + 1, 3 * unit, 2 ** 40, 2 ** 40 + 1]) {
          const up = roundUp(n, unit)
          check(up >= n && up < n + unit && up % unit === 0, `${n} rounded up to ${unit} is ${up}`)
        }
      // Rings that fill their pages exactly lie behind each other, never in each other.
      for (const size of [1, 64, 256]) {
        const places = test.started((fake) => (fake.size = size)).fake.places
        for (const at of places)
          for (const other of places)
            if (other !== at) check(other.used !== at.used && other.desc !== at.desc, 'two queues at one place')
      }
    },
  },
  {
    id: 'S13',
    run(test) {
      for (let id = 0; id < 511; id++) {
        same([portOfQueue(receiveqOf(id)), portOfQueue(transmitqOf(id))], [id, id], `ports of the queues of port ${id}`)
        check(![2, 3].includes(receiveqOf(id)) && ![2, 3].includes(transmitqOf(id)), `port ${id} has a control queue`)
      }
      const { fake, chardev } = test.open(undefined, { features: DRIVER_FEATURES })
      chardev.send('by queue 5')
      same(
        [1, 5, 7, 9].map((queue) => fake.available(queue)),
        [0, 1, 0, 0],
        'chains in the transmitqs after port 1 has sent',
      )
    },
  },
]
