/** What our driver says and hears on the control queues, and a host that lies there (§5.3.6.2). */

import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_CONSOLE_F_SIZE, VIRTIO_F_VERSION_1 } from '../../src/spec/features.ts'
import { encodeSize, receiveqOf } from '../../src/spec/console.ts'
import type { FakePair } from '../../test/support/fake-console.ts'
import { MemoryChardev } from '../../test/support/memory-chardev.ts'
import { check, Finding, same, type Case } from '../case.ts'
import { ADD, CONSOLE, NAME, OPEN, REMOVE, RESIZE, type DriverTest } from './test.ts'

const ALL_ONES = 0xffff_ffff
const RX = receiveqOf(1)

/** What the driver has said since it was last asked. */
function said({ fake }: FakePair): string[] {
  if (fake.rings[3]) fake.listen()
  return fake.heard.splice(0)
}

/** After whatever was done to it, the driver serves another device life. */
function works({ driver, fake }: FakePair): void {
  fake.acknowledge = 1
  if (driver.running) driver.restart()
  else driver.start()
  fake.listen()
  fake.say(1, ADD, 1)
  fake.say(1, OPEN, 1)
  const chardev = driver.port(1)?.attach((end) => new MemoryChardev(end)) as MemoryChardev | undefined
  check(chardev !== undefined, 'there is no port 1 after DEVICE_ADD')
  fake.send(RX, Buffer.from('alive'))
  same(chardev!.text, 'alive', 'what came after a restart')
}

/** Runs attacks, each on a driver of its own. */
async function attacks(
  test: DriverTest,
  list: Readonly<Record<string, (pair: ReturnType<DriverTest['open']>) => void | Promise<void>>>,
): Promise<void> {
  const found: string[] = []
  for (const [name, attack] of Object.entries(list)) {
    const pair = test.open()
    try {
      await attack(pair)
      // The driver may have put something off to its next turn.
      await test.settle()
      works(pair)
    } catch (error) {
      found.push(`${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (found.length > 0) throw new Finding(found.join('; '))
}

export const MESSAGE_CASES: readonly Case<DriverTest>[] = [
  {
    id: 'R101',
    run(test) {
      const pair = test.started()
      check(pair.fake.available(2) > 0, 'there are no buffers for control messages in queue 2')
      same(pair.fake.heard[0], `DEVICE_READY ${ALL_ONES} 1`, 'the first message in queue 3')
      const single = test.started((fake) => {
        fake.features = VIRTIO_F_VERSION_1
        fake.queueCount = 2
      })
      same(single.fake.places.length, 2, 'queues that are enabled without MULTIPORT')
    },
  },
  {
    id: 'R106',
    async run(test) {
      const pair = test.started((fake) => {
        fake.features = VIRTIO_F_VERSION_1 | VIRTIO_CONSOLE_F_SIZE
        fake.queueCount = 2
      })
      pair.fake.cols = 132
      pair.fake.rows = 43
      pair.fake.host.configChanged()
      await test.until(() => pair.driver.port(0)?.size?.cols === 132, 'the new size at the console')
      same(pair.driver.port(0)!.size, { cols: 132, rows: 43 }, 'the size')
    },
  },
  {
    id: 'R108',
    run(test) {
      const pair = test.started()
      pair.fake.acknowledge = 0
      pair.fake.say(1, ADD, 1)
      for (const chain of test.available(pair, 3)) {
        same(
          chain.map(({ len }) => len),
          [8],
          'bytes of a control message',
        )
        same([...pair.fake.bytes(3, chain[0]!.index)], [1, 0, 0, 0, 3, 0, 1, 0], 'PORT_READY 1 of port 1')
      }
    },
  },
  {
    id: 'R111',
    run(test) {
      same(said(test.started()), [`DEVICE_READY ${ALL_ONES} 1`], 'what the driver says with MULTIPORT')
      const without = test.started((fake) => {
        fake.features = VIRTIO_F_VERSION_1
        fake.queueCount = 2
      })
      check((without.fake.accepted & VIRTIO_CONSOLE_F_MULTIPORT) === 0n, 'MULTIPORT is accepted and not offered')
    },
  },
  {
    id: 'R112',
    run(test) {
      const pair = test.started()
      pair.fake.say(1, ADD, 1)
      said(pair)
      pair.fake.say(1, CONSOLE, 1)
      same(said(pair), ['PORT_OPEN 1 1'], 'the answer to CONSOLE_PORT')
      check(pair.driver.port(1)!.console, 'the port is not treated as a console')
    },
  },
  {
    id: 'R113',
    run(test) {
      const pair = test.started()
      said(pair)
      pair.fake.say(2, ADD, 1)
      same(said(pair), ['PORT_READY 2 1'], 'the answer to DEVICE_ADD')
      pair.fake.say(2, ADD, 1)
      same(said(pair), ['PORT_READY 2 1'], 'the answer to DEVICE_ADD of a port that is there')
    },
  },
  {
    id: 'R114',
    run(test) {
      const pair = test.started()
      pair.fake.say(1, ADD, 1)
      said(pair)
      const port = pair.driver.port(1)!
      pair.fake.say(1, OPEN, 1)
      check(port.hostOpen, 'PORT_OPEN 1 is not heard')
      pair.fake.say(1, OPEN, 0)
      check(!port.hostOpen, 'PORT_OPEN 0 is not heard')
      const chardev = port.attach((end) => new MemoryChardev(end)) as MemoryChardev
      chardev.setConnected(false)
      chardev.setConnected(true)
      same(
        said(pair),
        ['PORT_OPEN 1 1', 'PORT_OPEN 1 0', 'PORT_OPEN 1 1'],
        'what a program that opens, closes and opens makes the driver say',
      )
    },
  },
  {
    id: 'R115',
    run(test) {
      const pair = test.started()
      pair.fake.say(1, ADD, 1)
      pair.fake.say(1, CONSOLE, 1)
      pair.fake.say(1, RESIZE, 0, Uint8Array.of(0x50, 0, 0x18, 0))
      same(pair.driver.port(1)!.size, { cols: 80, rows: 24 }, 'the size for the bytes 50 00 18 00')
    },
  },
  {
    id: 'R116',
    run(test) {
      const pair = test.started()
      pair.fake.say(1, ADD, 1)
      pair.fake.say(1, NAME, 1, Buffer.from('org.käse.0'))
      same(pair.driver.port(1)!.name, 'org.käse.0', 'a name in UTF-8 without NUL')
      pair.fake.say(2, ADD, 1)
      pair.fake.say(2, NAME, 1, Buffer.from('with.nul\0'))
      same(pair.driver.port(2)!.name, 'with.nul', 'a name of a device that sends a NUL')
    },
  },
  {
    id: 'A7',
    async run(test) {
      for (const ports of [0, 0x8000, 2 ** 32 - 1]) {
        const pair = test.make((fake) => (fake.maxPorts = ports))
        try {
          pair.driver.start()
        } catch {
          // Refused is right too.
        }
        check(pair.driver.maxPorts <= 4, `${pair.driver.maxPorts} ports of a device that has queues for 4`)
      }
      await attacks(test, {
        'interrupts before DRIVER_OK': ({ fake }) => {
          for (let queue = 0; queue < 10; queue++) fake.host.interruptQueue(queue)
        },
        'used len longer than the buffer': ({ fake }) => fake.send(RX, Buffer.from('x'), 0x7fff_ffff),
        'short messages': ({ fake }) => {
          for (let len = 0; len < 8; len++) fake.send(2, Buffer.alloc(len, 1))
        },
        'ADD and REMOVE ten thousand times': async ({ fake, driver }) => {
          for (let i = 0; i < 10_000; i++) {
            // The driver gives buffers back as fast as its turns go.
            while (fake.available(2) === 0) await test.settle()
            fake.say(2, i & 1 ? REMOVE : ADD, 1)
            if (i % 8 === 0) fake.listen()
          }
          check(driver.ports.length <= 4, `${driver.ports.length} ports`)
        },
        'ids that cannot be': ({ fake, driver }) => {
          for (const id of [4, 5, 0x7fff_ffff, ALL_ONES])
            for (const event of [0, 1, 2, 3, 4, 5, 6, 7, 8, 0xffff]) fake.say(id, event, 1)
          check(
            driver.ports.every(({ id }) => id < 4),
            'a port with a number that cannot be',
          )
        },
        'RESIZE of 8 to 11 bytes': ({ fake, driver }) => {
          fake.say(1, CONSOLE, 1)
          for (let len = 0; len < 4; len++) fake.say(1, RESIZE, 0, encodeSize(80, 25, 'cols-rows').subarray(0, len))
          same(driver.port(1)!.size, undefined, 'the size')
        },
      })
    },
  },
  {
    id: 'A9',
    run(test) {
      for (const name of [
        '../../etc/passwd',
        'a/b',
        'two\nlines',
        '\u001b[31mred',
        '..',
        '.',
        '',
        'n'.repeat(121),
        '\u0085next',
      ])
        for (const bytes of [Buffer.from(name)]) {
          const pair = test.open()
          pair.fake.say(1, NAME, 1, bytes)
          same(
            pair.driver.port(1)!.name,
            undefined,
            `the name of a port that was called ${JSON.stringify(name.slice(0, 20))}`,
          )
          check(
            pair.log.every((line) => Buffer.from(line).every((byte) => byte >= 0x20 && byte !== 0x7f)),
            `the log has bytes of the name ${JSON.stringify(name.slice(0, 20))}`,
          )
        }
      const pair = test.open()
      pair.fake.say(1, NAME, 1, Uint8Array.of(0xff, 0xfe, 0x41))
      same(pair.driver.port(1)!.name, undefined, 'a name that is no UTF-8')
    },
  },
  {
    id: 'B1',
    async run(test) {
      await attacks(test, {
        'a used index that jumps': ({ fake }) => {
          fake.rings[RX]!.publishUsedIdx(0x4000)
          fake.host.interruptQueue(RX)
        },
        'a used index of the control queue that jumps': ({ fake }) => {
          fake.rings[2]!.publishUsedIdx(0x4000)
          fake.host.interruptQueue(2)
        },
        'a used index that goes backwards': ({ fake }) => {
          fake.send(RX, Buffer.from('x'))
          fake.rings[RX]!.publishUsedIdx(0)
          fake.host.interruptQueue(RX)
        },
        'a used id past the table': ({ fake }) => fake.use(RX, 0xffff, 1),
        'a used id of all ones': ({ fake }) => fake.use(RX, ALL_ONES, 1),
        'nothing written, again and again': ({ fake, chardev }) => {
          for (let i = 0; i < 40; i++) fake.use(RX, fake.take(RX), 0)
          same(chardev.received.length, 0, 'pieces that a program got')
        },
      })
    },
  },
  {
    id: 'B5',
    async run(test) {
      await attacks(test, {
        'one head used twice': ({ fake, driver }) => {
          const head = fake.take(RX)
          fake.use(RX, head, 1)
          const before = driver.faults
          // The driver has posted it again; twice in a row it can only be used once.
          fake.use(RX, 0xff, 1)
          check(driver.faults > before, 'a used entry for what is not in flight is taken')
        },
        'the other ports live': ({ fake, driver }) => {
          fake.say(2, ADD, 1)
          fake.use(RX, 0xff, 1)
          const port = driver.port(2)!
          const chardev = port.attach((end) => new MemoryChardev(end)) as MemoryChardev
          fake.send(receiveqOf(2), Buffer.from('alive'))
          same(chardev.text, 'alive', 'what came by another port')
        },
        'control messages acknowledged twice': ({ fake, driver }) => {
          fake.acknowledge = 2
          for (let i = 0; i < 20; i++) {
            fake.say(2, ADD, 1)
            fake.listen()
          }
          check(driver.running, 'the driver has stopped')
        },
      })
    },
  },
]
