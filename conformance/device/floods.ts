/** Work without end that a driver can ask for: other events have their turn all the same (§2.7.5.3, §5.3.6.2). */

import {
  CONSOLE_BAD_ID,
  CONTROL_TRANSMITQ,
  encodeControl,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../../src/spec/console.ts'
import { VIRTIO_RING_F_INDIRECT_DESC } from '../../src/spec/features.ts'
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/spec/split.ts'
import { TurnClock } from '../../fuzz/turn-clock.ts'
import { writeDesc, type RawQueue } from '../../test/support/raw-queue.ts'
import { check, type Case } from '../case.ts'
import { BASIC } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

const TABLE = 0x4000
const DESCRIPTORS = 1023
const ROUNDS = 20
/** Processor time of one turn of the event loop, where the device is in this process. The target is 20. */
const TURN_MS = 100

/** All chains of a queue are as long as can be, and lie in one table; for the last one a byte that is of use. */
function shareTable(queue: RawQueue, flags: number, lastFlags: number | undefined): void {
  for (let i = 0; i < DESCRIPTORS; i++) {
    const more = i + 1 < DESCRIPTORS
    writeDesc(
      queue.view,
      TABLE + 16 * i,
      queue.pageAddress(0),
      1,
      flags | (more ? VIRTQ_DESC_F_NEXT : 0),
      more ? i + 1 : 0,
    )
  }
  for (let i = 0; i < queue.size; i++) queue.desc(i, queue.region.base + TABLE, DESCRIPTORS * 16, VIRTQ_DESC_F_INDIRECT)
  if (lastFlags !== undefined) queue.desc(queue.size - 1, queue.pageAddress(0), 1, lastFlags)
}

/** The whole ring is available again and again, as fast as it is used. */
async function refill(test: DeviceTest, queue: RawQueue): Promise<void> {
  for (let i = 0; i < queue.size; i++) queue.setAvailRing(i, i)
  const clock = new TurnClock()
  clock.start()
  for (let i = 0; i < ROUNDS && !test.needsReset; i++) {
    queue.setAvailIdx(queue.usedIdx + queue.size)
    for (let n = 0; n < 100; n++) queue.notify()
    await test.settle()
  }
  clock.stop()
  check(clock.longest < TURN_MS, `other events waited ${clock.longest.toFixed(0)} ms for a turn`)
}

async function open(test: DeviceTest): Promise<{ tx: RawQueue; rx: RawQueue }> {
  await test.up({ features: BASIC | VIRTIO_RING_F_INDIRECT_DESC })
  const port = test.port()
  const peer = await test.tryConnect(port)
  peer?.write(Buffer.alloc(5000))
  await test.open(port)
  return { tx: test.queue(transmitqOf(port.id)), rx: test.queue(receiveqOf(port.id)) }
}

const MESSAGES: readonly (readonly [number, number, number])[] = [
  [CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1],
  [CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 0],
  [1, VIRTIO_CONSOLE_PORT_READY, 1],
  [1, VIRTIO_CONSOLE_PORT_READY, 0],
  [1, VIRTIO_CONSOLE_PORT_OPEN, 1],
  [1, VIRTIO_CONSOLE_PORT_OPEN, 0],
  [1, 0xffff, 0],
]

export const FLOOD_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'B7',
    async run(test) {
      test.needs(VIRTIO_RING_F_INDIRECT_DESC, 'INDIRECT_DESC')
      const long = (which: 'tx' | 'rx', flags: number, last?: number) => async (): Promise<void> => {
        const queue = (await open(test))[which]
        shareTable(queue, flags, last)
        await refill(test, queue)
        await test.works()
      }
      await test.parts({
        'a transmitq of useless chains': long('tx', VIRTQ_DESC_F_WRITE),
        'a transmitq of chains of a byte in a thousand pieces': long('tx', 0),
        'a receiveq of useless chains': long('rx', 0),
        'a receiveq with one byte behind useless chains': long('rx', 0, VIRTQ_DESC_F_WRITE),
        'control messages': async () => {
          for (const [id, event, value] of MESSAGES) {
            await open(test)
            const queue = test.queue(CONTROL_TRANSMITQ)
            const message = encodeControl(id, event, value)
            queue.page(0).set(message)
            for (let i = 0; i < queue.size; i++) queue.desc(i, queue.pageAddress(0), message.length, 0)
            await refill(test, queue)
            await test.works()
          }
        },
      })
    },
  },
]
