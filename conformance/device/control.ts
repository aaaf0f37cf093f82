/** What the device says of its ports, and what it makes of the driver's answers (§5.3.6.2). */

import {
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  CONSOLE_BAD_ID,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../../src/spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT } from '../../src/spec/features.ts'
import { check, NotApplicable, same, type Case } from '../case.ts'
import { controlWords, type StartOptions } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

/** A port of the case's own. */
const OWN_ID = 3
const OWN_NAME = 'org.conformance.own'

async function up(test: DeviceTest, options: StartOptions = {}): Promise<void> {
  test.needs(VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT')
  await test.up(options)
}

function about(test: DeviceTest, event: number, id?: number): string[] {
  return test.heard.filter((news) => news.event === event && (id === undefined || news.id === id)).map(controlWords)
}

export const CONTROL_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'R108',
    async run(test) {
      await up(test)
      check(test.heard.length > 0, 'the device said nothing at all')
      for (const news of test.heard) {
        check(news.event <= 7, `event ${news.event}`)
        const extra = news.event === VIRTIO_CONSOLE_PORT_NAME || news.event === 5
        check(extra ? news.len >= 8 : news.len === 8, `${controlWords(news)} has ${news.len} bytes`)
      }
    },
  },
  {
    id: 'R109',
    async run(test) {
      await up(test)
      const ids = test.heard.filter(({ event }) => event === VIRTIO_CONSOLE_DEVICE_ADD).map(({ id }) => id)
      same(ids.length, new Set(ids).size, 'DEVICE_ADD messages for each port')
      for (const id of ids) check(id < test.maxPorts(), `DEVICE_ADD of port ${id} of ${test.maxPorts()}`)
      const { addPort } = test.machine.host
      if (!addPort) return
      await addPort(OWN_ID, OWN_NAME)
      await test.until(() => (test.hear(), test.ports.has(OWN_ID)), 'DEVICE_ADD of a port that was plugged in')
      await test.quiet()
      same(about(test, VIRTIO_CONSOLE_DEVICE_ADD, OWN_ID), [`DEVICE_ADD ${OWN_ID} 1`], 'DEVICE_ADD of the new port')
    },
  },
  {
    id: 'R110',
    async run(test) {
      const { addPort, removePort } = test.machine.host
      if (!addPort || !removePort) return test.unable('add and remove ports')
      test.needs(VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT')
      test.start()
      test.postControl()
      await addPort(OWN_ID, OWN_NAME)
      await removePort(OWN_ID, OWN_NAME)
      await test.say(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
      await test.quiet()
      const added = new Set<number>()
      for (const { event, id } of test.heard) {
        if (event === VIRTIO_CONSOLE_DEVICE_ADD) added.add(id)
        if (event === VIRTIO_CONSOLE_DEVICE_REMOVE)
          check(added.delete(id), `DEVICE_REMOVE of port ${id}, which the driver was never told of`)
      }
      await addPort(OWN_ID, OWN_NAME)
      await test.until(() => (test.hear(), test.ports.has(OWN_ID)), 'DEVICE_ADD of a port that was plugged in')
      await test.say(OWN_ID, VIRTIO_CONSOLE_PORT_READY, 1)
      await removePort(OWN_ID, OWN_NAME)
      await test.until(() => (test.hear(), !test.ports.has(OWN_ID)), 'DEVICE_REMOVE of a port that was unplugged')
    },
  },
  {
    id: 'R113',
    async run(test) {
      test.needs(VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT')
      test.start()
      test.postControl()
      await test.say(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
      await test.quiet()
      const [first, ...others] = [...test.ports.keys()]
      if (first === undefined) throw new NotApplicable('the device has no port')
      const told = (): string[] =>
        test.heard.filter(({ id, event }) => id === first && event > VIRTIO_CONSOLE_DEVICE_ADD).map(controlWords)
      await test.dial(test.ports.get(first)!)
      await test.quiet()
      same(told(), [], 'what the device says of a port before the driver has answered its DEVICE_ADD')
      await test.say(first, VIRTIO_CONSOLE_PORT_READY, 0)
      await test.quiet()
      same(told(), [], 'what the device says of a port that the driver could not make')
      for (const id of others) await test.say(id, VIRTIO_CONSOLE_PORT_READY, 1)
      await test.quiet()
      for (const id of others)
        check(
          test.heard.some((news) => news.id === id && news.event > VIRTIO_CONSOLE_PORT_READY),
          `the device says nothing of port ${id} after PORT_READY 1`,
        )
    },
  },
  {
    id: 'R114',
    async run(test) {
      await up(test)
      const port = test.serial()
      check(!port.open, 'PORT_OPEN 1 while nobody is connected')
      const peer = await test.connect(port)
      // Nothing for a port that the guest has not opened; then all of it.
      const queue = test.receiveq(port.id)
      for (let i = 0; i < 4; i++) queue.postPage(i)
      queue.notify()
      peer.write(Buffer.from('waits'))
      await test.settle()
      same(queue.usedIdx, 0, 'buffers filled for a port that the guest has not opened')
      await test.open(port)
      await test.until(() => queue.usedIdx > 0, 'bytes once the guest has opened the port')
      same(Buffer.from(queue.page(0).subarray(0, 5)).toString('latin1'), 'waits', 'what came')
      const used = queue.usedIdx
      await test.say(port.id, VIRTIO_CONSOLE_PORT_OPEN, 0)
      peer.write(Buffer.from('again'))
      await test.settle()
      same(queue.usedIdx, used, 'buffers filled for a port that the guest has closed')
      await test.open(port)
      await test.until(() => queue.usedIdx > used, 'bytes once the guest has opened the port again')
      peer.close()
      await test.until(() => (test.hear(), !port.open), 'PORT_OPEN 0 when the host peer leaves')
    },
  },
  {
    id: 'R116',
    async run(test) {
      await up(test)
      const names = test.heard.filter(({ event }) => event === VIRTIO_CONSOLE_PORT_NAME)
      if (names.length === 0) throw new NotApplicable('no port of the device has a name')
      const decoder = new TextDecoder('utf-8', { fatal: true })
      for (const { id, tail } of names) {
        check(tail.length > 0, `PORT_NAME of port ${id} is empty`)
        check(!tail.includes(0), `PORT_NAME of port ${id} has a NUL: ${JSON.stringify(tail.toString('latin1'))}`)
        try {
          decoder.decode(tail)
        } catch {
          check(false, `PORT_NAME of port ${id} is no UTF-8`)
        }
      }
    },
  },
  {
    id: 'S7',
    async run(test) {
      await up(test)
      for (const { id, tail } of test.heard.filter(({ event }) => event === VIRTIO_CONSOLE_PORT_NAME))
        check(!tail.includes(0), `the name of port ${id} is ${JSON.stringify(tail.toString('latin1'))}`)
    },
  },
  {
    id: 'R117',
    async run(test) {
      await test.up()
      const { port, peer } = await test.channel()
      const queue = test.receiveq(port.id)
      let got = ''
      for (let i = 0; i < 6; i++) {
        queue.postPage(i % queue.size)
        queue.notify()
        peer.write(Buffer.from(`${i},`))
        await test.until(() => queue.usedIdx === i + 1, 'the only buffer to be filled')
        const [used] = queue.takeUsed()
        got += Buffer.from(queue.page(used!.id).subarray(0, used!.len)).toString('latin1')
      }
      same(got, '0,1,2,3,4,5,', 'what came by one buffer at a time')
    },
  },
  {
    id: 'S13',
    async run(test) {
      await test.up()
      for (const port of test.ports.values()) {
        const { peer } = await test.channel(port)
        const queues = test.queueIndices().filter((queue) => queue !== CONTROL_RECEIVEQ && queue !== CONTROL_TRANSMITQ)
        const used = new Map(queues.map((queue) => [queue, test.queue(queue).usedIdx]))
        const text = `port ${port.id}`
        test.receiveq(port.id).postPage(7)
        test.receiveq(port.id).notify()
        test.send(port, text)
        await test.arrives(peer, text)
        peer.write(Buffer.from(text))
        const moved = (): number[] => queues.filter((queue) => test.queue(queue).usedIdx !== used.get(queue))
        await test.until(() => moved().length >= 2, `both queues of port ${port.id} to move`)
        await test.settle()
        same(moved(), [receiveqOf(port.id), transmitqOf(port.id)], `queues that moved for port ${port.id}`)
        peer.close()
      }
    },
  },
]
