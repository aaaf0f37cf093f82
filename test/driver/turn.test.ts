/**
 * A device on a processor of its own that gives back what it gets as soon as it has it: how much of that the driver
 * looks at before the event loop has its turn. Counted in looks at the ring, not in time.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { DriverOptions } from '../../src/driver/console-options.ts'
import { SplitRing } from '../../src/ring/split-ring.ts'
import { encodeControl } from '../../src/spec/console.ts'
import { fakePair, type FakeConsole } from '../support/fake-console.ts'
import { MemoryChardev } from '../support/memory-chardev.ts'

/** Looks in one turn that nothing may come near to; what the old driver did was without end. */
const MANY = 200_000
/** A turn is worth 2048 entries that hold nothing; each may take a few looks. */
const LIMIT = 20_000
/** Of the event loop that are lived through under a device. */
const TURNS = 40
const [ADD, REMOVE, NAME, OPEN] = [1, 2, 7, 6]
const EVENT_IDX = 1n << 29n

type Behaviour = (fake: FakeConsole, queue: number, ring: SplitRing) => void

describe('a device that never comes to an end', () => {
  // oxlint-disable-next-line unbound-method -- called with a ring
  const usedIdx = SplitRing.prototype.usedIdx
  let looks = 0
  let worst = 0
  let behave: ((ring: SplitRing) => void) | undefined
  let inside = false

  beforeEach(() => {
    looks = worst = 0
    SplitRing.prototype.usedIdx = function look(this: SplitRing): number {
      if (inside || !behave) return usedIdx.call(this)
      if (++looks > MANY) throw new Error(`${looks} looks in one turn`)
      worst = Math.max(worst, looks)
      inside = true
      try {
        behave(this)
      } finally {
        inside = false
      }
      return usedIdx.call(this)
    }
  })
  afterEach(() => {
    SplitRing.prototype.usedIdx = usedIdx
    behave = undefined
    inside = false
  })

  async function suffer(options: DriverOptions, features: bigint, behaviour: Behaviour) {
    const pair = fakePair((fake) => {
      fake.features |= features
      fake.acknowledge = 1
    }, options)
    const { fake, driver } = pair
    driver.start()
    fake.say(1, ADD, 1)
    fake.say(1, OPEN, 1)
    const chardev = driver.port(1)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
    await turn()
    let waits = 0
    behave = (ring) => {
      // The driver has ring objects of its own; they lie where the device was told.
      const queue = fake.rings.findIndex((one) => one?.desc.byteOffset === ring.desc.byteOffset)
      if (queue >= 0) behaviour(fake, queue, ring)
    }
    fake.host.interruptQueue(4)
    fake.host.interruptQueue(2)
    chardev.send(new Uint8Array(1 << 20))
    for (; waits < TURNS; waits++) {
      looks = 0
      await turn()
      for (const queue of [2, 3, 4, 5]) fake.host.interruptQueue(queue)
      fake.host.configChanged()
    }
    behave = undefined
    return { ...pair, chardev }
  }

  const using =
    (queue: number, give: (fake: FakeConsole) => void): Behaviour =>
    (fake, found) => {
      if (found === queue) while (fake.available(queue) > 0) give(fake)
    }
  const control = (...messages: readonly [number, number, number, Uint8Array?][]): Behaviour => {
    let next = 0
    return using(2, (fake) => {
      const bytes = encodeControl(...messages[next++ % messages.length]!)
      const head = fake.take(2)
      fake.bytes(2, head).set(bytes)
      fake.use(2, head, bytes.length, false)
    })
  }

  const behaviours: Record<string, Behaviour> = {
    'uses receive buffers with nothing': using(4, (fake) => fake.use(4, fake.take(4), 0, false)),
    'uses receive buffers with one byte': using(4, (fake) => fake.use(4, fake.take(4), 1, false)),
    'fills receive buffers': using(4, (fake) => fake.use(4, fake.take(4), 4096, false)),
    'takes what is sent at once': using(5, (fake) => fake.use(5, fake.take(5), 0, false)),
    'adds one port for ever': control([1, ADD, 1]),
    'adds and removes ports': control([2, ADD, 1], [2, OPEN, 1], [2, REMOVE, 1]),
    'names a port for ever': control([1, NAME, 1, Buffer.from('../x')], [1, NAME, 1, Buffer.from('a')]),
    'opens and closes a port': control([1, OPEN, 0], [1, OPEN, 1]),
    'speaks of ports that are none': control([77, OPEN, 1], [0xffffffff, 99, 3]),
    'sends empty control messages': using(2, (fake) => fake.use(2, fake.take(2), 0, false)),
    'acknowledges control messages for ever': (fake, queue) => {
      if (queue !== 3) return
      if (fake.available(3) > 0) fake.use(3, fake.take(3), 0, false)
      else fake.use(3, 0, 0, false)
    },
  }

  for (const [features, name] of [
    [0n, 'flags'],
    [EVENT_IDX, 'EVENT_IDX'],
  ] as const)
    for (const [patience, watch] of [
      [0, ''],
      [100, ', a patient driver'],
    ] as const)
      it.each(Object.entries(behaviours))(`%s (${name}${watch})`, async (_, behaviour) => {
        const { fake, driver, log, chardev } = await suffer({ patience }, features, behaviour)
        expect(worst).toBeGreaterThan(0)
        expect(worst).toBeLessThan(LIMIT)
        expect(log.length).toBeLessThan(30)
        // It goes on with everything as soon as the device behaves.
        driver.restart()
        fake.heard.length = 0
        fake.say(1, ADD, 1)
        fake.say(1, OPEN, 1)
        await turn()
        fake.listen()
        expect(fake.heard).toContain('PORT_READY 1 1')
        expect(chardev.connected).toBe(true)
      })

  it('all ports share the turn: 100 of them that never come to an end are no more than one', async () => {
    const { fake, driver } = fakePair((one) => {
      one.queueCount = 2 * 101 + 2
      one.maxPorts = 101
    })
    driver.start()
    for (let id = 0; id < 101; id++) {
      fake.say(id, ADD, 1)
      await turn()
      driver.port(id)!.attach((end) => new MemoryChardev(end))
    }
    behave = (ring) => {
      const queue = fake.rings.findIndex((one) => one?.desc.byteOffset === ring.desc.byteOffset)
      if (queue >= 4 && queue % 2 === 0) while (fake.available(queue) > 0) fake.use(queue, fake.take(queue), 0, false)
    }
    const all = fake.rings.map((_, queue) => queue).filter((queue) => queue >= 4 && queue % 2 === 0)
    for (let i = 0; i < TURNS; i++) {
      looks = 0
      for (const queue of all) fake.host.interruptQueue(queue)
      await turn()
    }
    behave = undefined
    expect(worst).toBeGreaterThan(100)
    expect(worst).toBeLessThan(LIMIT)
  })

  it('who waits for its turn when the device is reset is not heard of again', async () => {
    const { fake, driver } = await suffer({}, 0n, behaviours['uses receive buffers with one byte']!)
    driver.restart()
    const rings = [...fake.rings]
    const before = rings.slice(4).map((ring) => ring?.availIdx())
    await turn()
    await turn()
    expect(rings.slice(4).map((ring) => ring?.availIdx())).toEqual(before)
    expect(driver.faults).toBe(0)
  })
})
