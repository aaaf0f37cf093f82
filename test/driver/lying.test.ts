/** A lying device (A7): what the other tests of the driver leave out. */
import { describe, expect, it } from 'vitest'
import { CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_ADD, VIRTIO_CONSOLE_PORT_OPEN } from '../../src/spec/console.ts'
import { fakePair, type FakePair } from '../support/fake-console.ts'
import { MemoryChardev } from '../support/memory-chardev.ts'
import { settle } from '../support/pair.ts'

const ADD = VIRTIO_CONSOLE_DEVICE_ADD
const OPEN = VIRTIO_CONSOLE_PORT_OPEN

function opened(prepare?: (fake: FakePair['fake']) => void): FakePair & { chardev: MemoryChardev } {
  const pair = fakePair(prepare)
  pair.driver.start()
  pair.fake.say(1, ADD, 1)
  pair.fake.say(1, OPEN, 1)
  const chardev = pair.driver.port(1)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
  return { ...pair, chardev }
}

describe('A7, a device that lies', () => {
  it('max_nr_ports 1 with MULTIPORT: one port, and an ADD of another is ignored', () => {
    const { fake, driver } = fakePair((f) => (f.maxPorts = 1))
    driver.start()
    fake.say(0, ADD, 1)
    fake.say(1, ADD, 1)
    expect(driver.maxPorts).toBe(1)
    expect(driver.ports.map(({ id }) => id)).toEqual([0])
    expect(driver.ignoredControl).toBe(1)
  })

  it('interrupts at every step before DRIVER_OK: nothing is served, nothing is notified, and it starts', () => {
    let storms = 0
    const pair = fakePair((fake) => {
      const enable = fake.enableQueue.bind(fake)
      const accept = fake.acceptFeatures.bind(fake)
      const storm = (): void => {
        storms++
        for (let queue = 0; queue < 10; queue++) fake.host.interruptQueue(queue)
        fake.host.configChanged()
      }
      fake.acceptFeatures = () => {
        storm()
        return accept(0n)
      }
      fake.enableQueue = (...args) => {
        const done = enable(...args)
        // And something to find, if it looked.
        fake.rings[args[0]]!.publishUsedIdx(0)
        storm()
        return done
      }
    })
    pair.driver.start()
    expect(storms).toBeGreaterThan(10)
    expect(pair.fake.early).toEqual([])
    expect(pair.driver.faults).toBe(0)
    pair.fake.say(1, ADD, 1)
    expect(pair.driver.ports.map(({ id }) => id)).toEqual([1])
  })

  it.each([
    ['the same receive buffer twice', 4],
    ['the same transmit buffer twice', 5],
  ])('%s: the port is broken, with one line in the log; the next one lives', (_, queue) => {
    const pair = opened()
    const { fake, chardev } = pair
    if (queue === 5) chardev.send('x')
    const head = fake.take(queue)
    fake.use(queue, head, queue === 4 ? 1 : 0, false)
    fake.use(queue, head, queue === 4 ? 1 : 0)
    chardev.send('y')
    expect(pair.events.at(-1)).toBe('broken 1')
    expect(pair.log.filter((line) => line.startsWith('error'))).toHaveLength(1)
    fake.say(2, ADD, 1)
    fake.say(2, OPEN, 1)
    const other = pair.driver.port(2)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
    fake.send(6, Buffer.from('alive'))
    expect(other.text).toBe('alive')
  })

  it('used.idx that runs ahead for ever: broken at once, no spin', () => {
    const { fake, events } = opened()
    for (let i = 1; i < 50; i++) {
      if (!fake.rings[4]) break
      fake.rings[4].publishUsedIdx((i * 1000) & 0xffff)
      fake.host.interruptQueue(4)
    }
    expect(events.filter((event) => event === 'broken 1')).toHaveLength(1)
  })

  it('messages for nobody, short and long, 10^4 of them: counted, no memory kept', async () => {
    const { fake, driver, log } = opened()
    const lines = log.length
    for (let i = 0; i < 10_000; i++) {
      if (i % 32 === 0) await settle(1)
      fake.send(2, new Uint8Array(i % 12))
    }
    await settle(1)
    for (const id of [2, 3, 4, 1000, CONSOLE_BAD_ID]) fake.say(id, OPEN, 1)
    expect(driver.ignoredControl).toBeGreaterThan(9_000)
    expect(driver.ports.map(({ id }) => id)).toEqual([1])
    expect(log.length).toBe(lines)
  })
})
