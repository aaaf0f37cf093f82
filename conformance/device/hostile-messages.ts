/** Control messages, names and buffers for them that make no sense (§5.3.6.2). */

import {
  CONSOLE_BAD_ID,
  CONSOLE_NAME_MAX,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  encodeControl,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../../src/spec/console.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT } from '../../src/spec/features.ts'
import type { RawSegment } from '../../test/support/raw-queue.ts'
import { check, NotApplicable, same, type Case } from '../case.ts'
import type { DeviceTest } from '../raw/test.ts'

const GUARD = 0xcc

function multiport(test: DeviceTest): void {
  test.needs(VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT')
}

/** Whatever is said, and however often: each buffer comes back, unless something else has stopped the device. */
async function sayAll(test: DeviceTest, messages: readonly Uint8Array[], stopped = false): Promise<void> {
  const queue = test.queue(CONTROL_TRANSMITQ)
  for (let i = 0; i < messages.length; i += queue.size) {
    for (const bytes of messages.slice(i, i + queue.size)) queue.put(bytes)
    queue.notify()
    await test.until(
      () => queue.usedIdx === queue.availIdx || (stopped && test.needsReset),
      'all control messages back',
    )
    if (stopped && test.needsReset) return
  }
}

/** One kind of buffer for control messages; then the device has a lot to say. */
async function controlBuffer(test: DeviceTest, cut: (address: number) => RawSegment[]): Promise<void> {
  multiport(test)
  test.start()
  const queue = test.queue(CONTROL_RECEIVEQ)
  queue.pages.bytes.fill(GUARD)
  for (let i = 0; i < 8; i++) queue.chain(cut(queue.pageAddress(i)))
  queue.notify()
  // Nobody takes what it says: no buffer goes back to it.
  const ready = Array.from({ length: test.maxPorts() }, (_, id) => encodeControl(id, VIRTIO_CONSOLE_PORT_READY, 1))
  await sayAll(test, [encodeControl(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1), ...ready], true)
  await test.settle()
  for (let i = 0; i < 8; i++) {
    const segments = cut(queue.pageAddress(i)).filter(({ write, len }) => write && len > 0)
    const page = queue.page(i)
    for (let at = 0; at < page.length; at++) {
      const address = queue.pageAddress(i) + at
      const inside = segments.some((part) => address >= part.address && address < part.address + part.len)
      if (!inside) check(page[at] === GUARD, `byte ${at} was written, which is in no writable buffer`)
    }
  }
  await test.works()
}

const BAD_NAMES: Readonly<Record<string, string>> = {
  'a path': '../escape',
  'a newline': 'two\nlines',
  'an escape': '\u001b[31mred',
  'longer than any buffer of a driver': 'n'.repeat(CONSOLE_NAME_MAX + 1),
  'a NUL': 'org\0hidden',
}

export const MESSAGE_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'A1',
    async run(test) {
      multiport(test)
      const whole = (len: number) => (address: number) => [{ address, len, write: true }]
      await test.parts({
        '0 bytes': () => controlBuffer(test, whole(0)),
        '1 byte': () => controlBuffer(test, whole(1)),
        '7 bytes': () => controlBuffer(test, whole(7)),
        '8 bytes': () => controlBuffer(test, whole(8)),
        '9 bytes': () => controlBuffer(test, whole(9)),
        'in pieces of 1 and 3 bytes': () =>
          controlBuffer(test, (address) => [
            { address, len: 1, write: true },
            { address: address + 100, len: 3, write: true },
            { address: address + 200, len: 60, write: true },
          ]),
        'not writable': () => controlBuffer(test, (address) => [{ address, len: 64 }]),
        'readable, then writable': () =>
          controlBuffer(test, (address) => [
            { address, len: 64 },
            { address: address + 100, len: 4, write: true },
          ]),
      })
    },
  },
  {
    id: 'A6',
    async run(test) {
      multiport(test)
      await test.up()
      const queue = test.queue(CONTROL_TRANSMITQ)
      const port = test.port()
      for (const len of [9, 64, 4096, 65_536]) {
        const used = queue.usedIdx
        // As long as it says, over many pages, with a message at its head.
        queue.page(0).set(encodeControl(port.id, VIRTIO_CONSOLE_PORT_READY, 1))
        queue.chain([{ address: queue.pageAddress(0), len: Math.min(len, queue.size * 4096) }])
        queue.notify()
        await test.until(() => queue.usedIdx !== used, `a control message of ${len} bytes to come back`)
        await test.quiet()
      }
      const output = test.transmitq(port.id)
      await test.open(port)
      output.chain([{ address: output.pageAddress(0), len: output.size * 4096 }])
      output.notify()
      await test.settle()
      check(!test.needsReset, 'the device needs a reset for a long message')
      await test.works()
    },
  },
  {
    id: 'A8',
    async run(test) {
      multiport(test)
      const ids = [0, test.maxPorts() - 1, test.maxPorts(), test.maxPorts() + 1, 0x7fff_ffff, CONSOLE_BAD_ID]
      await test.parts({
        'unknown events': async () => {
          await test.up()
          await sayAll(
            test,
            ids.flatMap((id) => [1, 2, 4, 5, 7, 8, 9, 0x7fff, 0xffff].map((event) => encodeControl(id, event, 1))),
          )
          await test.works()
        },
        'messages that are too short': async () => {
          await test.up()
          await sayAll(
            test,
            [1, 2, 3, 4, 5, 6, 7].map((len) => encodeControl(0, VIRTIO_CONSOLE_PORT_OPEN, 1).subarray(0, len)),
          )
          await test.works()
        },
        'PORT_OPEN before PORT_READY, and both for ports that are not there': async () => {
          test.start()
          test.postControl()
          for (const event of [VIRTIO_CONSOLE_PORT_OPEN, VIRTIO_CONSOLE_PORT_READY])
            await sayAll(
              test,
              ids.flatMap((id) => [0, 1, 2, 0xffff].map((value) => encodeControl(id, event, value))),
            )
          await test.works()
        },
        'open and closed a thousand times': async () => {
          await test.up()
          const { id } = test.port()
          await sayAll(
            test,
            Array.from({ length: 2000 }, (_, i) => encodeControl(id, VIRTIO_CONSOLE_PORT_OPEN, i & 1)),
          )
          await sayAll(
            test,
            Array.from({ length: 200 }, () => encodeControl(id, VIRTIO_CONSOLE_PORT_OPEN, 1)),
          )
          await test.works()
        },
        'DEVICE_READY thousands of times, and nobody listens': async () => {
          test.start()
          await sayAll(
            test,
            Array.from({ length: 4000 }, () => encodeControl(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)),
          )
          await test.works()
        },
      })
    },
  },
  {
    id: 'A9',
    async run(test) {
      const { addPort } = test.machine.host
      if (!addPort) return test.unable('add ports')
      multiport(test)
      await test.up()
      const known = [...test.ports.values()].find(({ name }) => name !== undefined)
      const added = (name: string): Promise<boolean> =>
        addPort(3, name).then(
          () => true,
          () => false,
        )
      if (!known) throw new NotApplicable('no port of the device has a name')
      check(!(await added(known.name!)), 'a second port was given a name that is taken')
      await test.parts(
        Object.fromEntries(
          Object.entries(BAD_NAMES).map(([what, name]) => [
            what,
            async () => {
              const before = test.heard.length
              if (!(await added(name))) return
              await test.machine.host.removePort?.(3, name)
              test.heard.splice(before)
              check(false, 'a port was given a name that guests make a file of')
            },
          ]),
        ),
      )
    },
  },
  {
    id: 'S14',
    async run(test) {
      multiport(test)
      await test.up()
      const port = test.port()
      await sayAll(test, [
        encodeControl(test.maxPorts(), VIRTIO_CONSOLE_PORT_OPEN, 1),
        encodeControl(CONSOLE_BAD_ID, VIRTIO_CONSOLE_PORT_READY, 1),
        encodeControl(port.id, VIRTIO_CONSOLE_PORT_OPEN, 1),
        encodeControl(port.id, VIRTIO_CONSOLE_PORT_OPEN, 1),
        encodeControl(port.id, VIRTIO_CONSOLE_PORT_OPEN, 1).subarray(0, 5),
        encodeControl(port.id, 0xffff, 0xffff),
      ])
      check(!test.needsReset, 'the device needs a reset after messages that make no sense')
      const { peer } = await test.channel(port)
      test.send(port, 'alive')
      await test.arrives(peer, 'alive')
      same(test.queue(CONTROL_TRANSMITQ).usedIdx, test.queue(CONTROL_TRANSMITQ).availIdx, 'control messages given back')
    },
  },
]
