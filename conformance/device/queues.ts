/** Queues and their registers: sizes, enabling, resetting one (§2.6, §4.1.4.3). */

import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET } from '../../src/spec/features.ts'
import { check, same, sameBits, type Case } from '../case.ts'
import { BASIC, type PortInfo } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'
import { transmitqOf } from '../../src/spec/console.ts'

/** Both ends of a port open, RING_RESET negotiated, and one buffer gone through its transmitq. */
async function withReset(test: DeviceTest): Promise<{ port: PortInfo; queue: number }> {
  test.needs(VIRTIO_F_RING_RESET, 'RING_RESET')
  await test.up({ features: BASIC | VIRTIO_F_RING_RESET })
  const { port, peer } = await test.channel()
  test.send(port, 'before')
  await test.arrives(peer, 'before')
  return { port, queue: transmitqOf(port.id) }
}

async function resetQueue(test: DeviceTest, queue: number): Promise<void> {
  const { registers } = test
  registers.select(queue).write('queue_reset', 1)
  await test.until(() => registers.read('queue_reset') === 0, 'queue_reset to read 0')
}

export const QUEUE_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'R18',
    async run(test) {
      const { port, queue } = await withReset(test)
      await test.until(() => test.queueInterrupts(queue) > 0, 'the interrupt for a buffer')
      await resetQueue(test, queue)
      await test.settle()
      const interrupts = test.queueInterrupts(queue)
      const ring = test.transmitq(port.id)
      const before = Buffer.from(ring.region.bytes)
      const used = ring.usedIdx
      ring.put(Buffer.from('for nobody'))
      ring.notify()
      await test.settle()
      same(ring.usedIdx, used, 'used.idx of a queue that was reset')
      check(
        Buffer.from(ring.region.bytes).subarray(0xa000).equals(before.subarray(0xa000)),
        'the used ring was written to',
      )
      same(test.queueInterrupts(queue), interrupts, 'interrupts of a queue that was reset')
      const { registers } = test
      sameBits(registers.select(queue).read('queue_enable'), 0, 'queue_enable after the reset of the queue')
    },
  },
  {
    id: 'R20',
    async run(test) {
      const { port, queue } = await withReset(test)
      await resetQueue(test, queue)
      const size = Math.max(2, Math.min(test.sizeMax(queue), 64) / 4)
      const ring = test.enable(queue, size)
      sameBits(test.registers.select(queue).read('queue_size'), size, 'queue_size')
      sameBits(test.registers.read('queue_enable'), 1, 'queue_enable')
      const rounds = 2 * size + 1
      for (let i = 0; i < rounds; i++) {
        test.send(port, `${i} `)
        await test.until(() => ring.usedIdx === i + 1, `buffer ${i} back from a queue of another size at another place`)
      }
    },
  },
  {
    id: 'R75',
    async run(test) {
      const { resize } = test.machine.host
      await test.up()
      const port = test.consolePort()
      if (!resize) return test.unable('change the configuration')
      const { registers } = test
      const seen = new Set([registers.read('config_generation')])
      for (let i = 1; i <= 3; i++) {
        const cols = registers.config(0, 2)
        await resize(port.id, port.name, cols + i, 20 + i)
        await test.until(() => registers.config(0, 2) === cols + i, 'the new cols in the configuration')
        const generation = registers.read('config_generation')
        check(!seen.has(generation), `config_generation is ${generation} as before, and cols has changed`)
        seen.add(generation)
      }
    },
  },
  {
    id: 'R77',
    run(test) {
      test.start()
      const { registers } = test
      for (const queue of test.queueIndices())
        sameBits(registers.select(queue).read('queue_enable'), 1, `queue_enable of queue ${queue}`)
      const queues = test.queueIndices()
      test.reset()
      for (const queue of queues)
        sameBits(registers.select(queue).read('queue_enable'), 0, `queue_enable of queue ${queue} after a reset`)
    },
  },
  {
    id: 'R78',
    async run(test) {
      test.needs(VIRTIO_F_RING_RESET, 'RING_RESET')
      const { registers } = test
      check(registers.has('queue_reset'), 'RING_RESET is offered, and the common configuration ends before queue_reset')
      sameBits(registers.select(0).read('queue_reset'), 0, 'queue_reset after a reset of the device')
      const { queue } = await withReset(test)
      sameBits(registers.select(queue).read('queue_reset'), 0, 'queue_reset of an enabled queue')
      await resetQueue(test, queue)
      sameBits(registers.read('queue_enable'), 0, 'queue_enable once queue_reset reads 0')
      test.enable(queue)
      sameBits(registers.select(queue).read('queue_reset'), 0, 'queue_reset once the queue is enabled again')
      sameBits(registers.read('queue_enable'), 1, 'queue_enable')
    },
  },
  {
    id: 'R79',
    run(test) {
      const count = test.registers.read('num_queues')
      for (let queue = 0; queue < count; queue++) {
        const size = test.sizeMax(queue)
        check(
          (size & (size - 1)) === 0 || test.offers(VIRTIO_F_RING_PACKED),
          `queue_size of queue ${queue} is ${size}, no power of two`,
        )
      }
      for (const queue of [count, count + 1, 0x7fff, 0xfffe, 0xffff])
        if (queue >= count) same(test.sizeMax(queue), 0, `queue_size of queue ${queue} of ${count}`)
    },
  },
  {
    id: 'S3',
    run(test) {
      const count = test.registers.read('num_queues')
      if (test.offers(VIRTIO_CONSOLE_F_MULTIPORT)) {
        const needed = 2 * (test.maxPorts() + 1)
        check(count >= needed, `num_queues is ${count}; ${test.maxPorts()} ports need ${needed}`)
      } else check(count >= 2, `num_queues is ${count}; a console has 2`)
      check(test.sizeMax(0) > 0 && test.sizeMax(1) > 0, 'queue 0 or 1 has no entries')
    },
  },
]
