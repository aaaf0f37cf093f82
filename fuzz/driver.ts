/**
 * Random devices in front of our driver: used entries that lie, control messages of any kind, indices that jump. The
 * driver never throws into an interrupt, never hands a program bytes of another port's, and can be restarted.
 */

import assert from 'node:assert/strict'
import { fakePair } from '../test/support/fake-console.ts'
import { settle } from '../test/support/pair.ts'
import { MemoryChardev } from '../test/support/memory-chardev.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const OPS = 300

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const chardevs: MemoryChardev[] = []
  let failures = 0
  const { fake, driver } = fakePair(
    (f) => {
      f.features |= BigInt(r.below(4)) << 28n
      f.size = r.pick([1, 2, 16, 256])
      f.acknowledge = f.size > 1 ? r.pick([1, 1, 1, 2]) : 1
    },
    {
      receiveLen: r.pick([1, 16, 4096]),
      transmitLen: r.pick([1, 16, 4096]),
      onFailed: () => void failures++,
      onPort({ event, port }) {
        if (event === 'added' && r.chance(80))
          chardevs.push(port.attach((end) => new MemoryChardev(end, r.chance(70))) as MemoryChardev)
      },
    },
  )
  driver.start()
  for (let step = 0; step < OPS && !r.ended; step++) {
    r.step()
    if (!driver.running) {
      assert.ok(failures > 0, 'stopped without a word')
      failures = 0
      driver.start()
    }
    const queue = r.pick([2, 2, 3, 4, 5, 6, 7, 0, 1])
    switch (r.below(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        // A message that could be: mostly about ports that are there.
        if (fake.available(2) > 0)
          fake.say(
            r.chance(90) ? r.below(4) : r.word(),
            r.chance(90) ? r.pick([1, 1, 2, 4, 5, 6, 6, 7]) : r.word() & 0xffff,
            r.below(2),
            r.bytes(r.below(20)),
          )
        break
      case 4:
      case 5:
        if (fake.available(queue) > 0 && queue % 2 === 0) fake.send(queue, new Uint8Array(r.below(5000)).fill(queue))
        break
      case 6:
        if (queue === 3) fake.listen()
        else if (fake.available(queue) > 0) fake.use(queue, fake.take(queue), 0)
        break
      case 7:
        if (r.chance(15)) fake.use(queue, r.chance(50) ? r.below(300) : r.word(), r.word())
        break
      case 8:
        if (r.chance(10)) {
          fake.rings[queue]!.publishUsedIdx(r.below(65536))
          fake.host.interruptQueue(queue)
        }
        break
      case 9:
        if (r.chance(20)) fake.host.needsReset()
        else fake.host.configChanged()
        break
      case 10:
        r.pick(chardevs)?.send(r.bytes(r.below(3000)))
        r.pick(chardevs)?.setRoom(r.pick([0, 10, Infinity]))
        break
      default:
        r.pick(chardevs)?.setConnected(r.chance(70))
        if (r.chance(10)) await settle(1)
    }
    if (driver.ports.length > 4) throw new Error('more ports than the device may have')
  }
  // Each byte a program got carries the number of the queue it came by.
  for (const chardev of chardevs)
    if (new Set(Buffer.concat(chardev.received)).size > 1) throw new Error('bytes of another port')
  // What it may look at in one turn may be used up.
  await settle(2)
  fake.acknowledge = 1
  if (driver.running) driver.restart()
  else driver.start()
  fake.heard.length = 0
  fake.say(1, 1, 1)
  fake.say(1, 6, 1)
  await settle(2)
  const port = driver.port(1)!
  const chardev = port.chardev ?? port.attach((end) => new MemoryChardev(end))
  if (!chardev.connected) (chardev as MemoryChardev).setConnected(true)
  ;(chardev as MemoryChardev).setRoom(Infinity)
  fake.send(4, new Uint8Array(1).fill(0x79))
  await settle(2)
  assert.equal((chardev as MemoryChardev).text, 'y')
  // With EVENT_IDX this device never asks to be notified.
  fake.listen()
  assert.ok(fake.heard.includes('PORT_READY 1 1'), 'PORT_READY was not said')
  return OPS
}

export const DRIVER: FuzzTarget = simple('driver', 'devices that lie, before our driver', episode)
