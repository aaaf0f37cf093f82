/**
 * A driver whose fence is none (TCG with one virtual processor) makes a chain available and reads the wish to be
 * notified from before: it does not notify. Each queue is looked at once more after it was armed; an idle device is not
 * woken.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, it, vi } from 'vitest'
import { Repoll } from '../../src/device/repoll.ts'
import {
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  encodeControl,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_PORT_OPEN,
} from '../../src/spec/console.ts'
import { VIRTIO_RING_F_EVENT_IDX } from '../../src/spec/features.ts'
import { until } from '../support/pair.ts'
import { BASIC, RawDriver } from '../support/raw-driver.ts'

afterEach(() => vi.restoreAllMocks())

async function open(features: bigint, controlBuffers = 16) {
  const raw = new RawDriver()
  const { port, chardev } = await raw.host({ id: 1, name: 'a' })
  raw.start(features).ready(controlBuffers).open(1)
  return { raw, port, chardev }
}

const FEATURES: [string, bigint][] = [
  ['flags', BASIC],
  ['EVENT_IDX', BASIC | VIRTIO_RING_F_EVENT_IDX],
]

it.each(FEATURES)('a transmit buffer without its notification: %s', async (_, features) => {
  const { raw, chardev } = await open(features)
  const queue = raw.queue(transmitqOf(1))
  queue.put(Buffer.from('one'))
  queue.notify()
  queue.put(Buffer.from('two'))
  expect(chardev.text).toBe('one')
  await until(() => chardev.text === 'onetwo', 'the second buffer', 2000)
})

it.each(FEATURES)('a receive buffer without its notification: %s', async (_, features) => {
  const { raw, chardev } = await open(features)
  const queue = raw.queue(receiveqOf(1))
  chardev.send('hello')
  queue.notify()
  queue.postPage(0)
  await until(() => queue.usedIdx === 1, 'the buffer', 2000)
})

it.each(FEATURES)('a control message without its notification: %s', async (_, features) => {
  const { raw, port } = await open(features)
  const queue = raw.queue(CONTROL_TRANSMITQ)
  const closing = encodeControl(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
  queue.page(1).set(closing)
  queue.desc(1, queue.pageAddress(1), closing.length, 0)
  queue.avail(1)
  await until(() => !port.guestOpen, 'the message', 2000)
})

it.each(FEATURES)('a control receive buffer without its notification: %s', async (_, features) => {
  const { raw } = await open(features, 1)
  const queue = raw.queue(CONTROL_RECEIVEQ)
  const before = queue.usedIdx
  queue.takeUsed()
  queue.postPage(0)
  await until(() => queue.usedIdx !== before, 'the message', 2000)
})

it('nothing wakes an idle device', async () => {
  const { raw } = await open(BASIC)
  await sleep(20)
  const timers = vi.spyOn(globalThis, 'setTimeout')
  raw.queue(transmitqOf(1)).put(Buffer.from('x'))
  raw.queue(transmitqOf(1)).notify()
  await sleep(20)
  const woken = timers.mock.calls.length
  expect(woken).toBeGreaterThan(0)
  expect(woken).toBeLessThanOrEqual(2)
  await sleep(20)
  expect(timers.mock.calls.length).toBe(woken)
})

it('one timer for all queues; each is looked at a whole moment after it was armed', () => {
  const timers: (() => void)[] = []
  const looked: number[] = []
  const repoll = new Repoll(
    1024,
    (_, fn) => timers.push(fn),
    (queue) => (looked.push(queue), false),
  )
  const pass = (): number => {
    looked.length = 0
    for (const fn of timers.splice(0)) fn()
    return looked.length
  }
  for (let round = 0; round < 100; round++) for (let queue = 0; queue < 1024; queue++) repoll.armed(queue)
  expect(timers.length).toBe(1)
  expect(pass()).toBe(1024)
  expect(timers.length).toBe(1)
  expect(pass()).toBe(1024)
  expect(timers.length).toBe(0)
})
