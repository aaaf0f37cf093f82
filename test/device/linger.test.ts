/** A driver that sends one buffer after the other is not asked to notify of each: the device looks again by itself. */

import { afterEach, expect, it, vi } from 'vitest'
import { alone } from '../../src/device/lookout.ts'
import { needEvent } from '../../src/ring/event-idx.ts'
import { transmitqOf } from '../../src/spec/console.ts'
import { VIRTIO_RING_F_EVENT_IDX } from '../../src/spec/features.ts'
import { BASIC, RawDriver } from '../support/raw-driver.ts'

const NO_NOTIFY = 1

afterEach(() => vi.restoreAllMocks())

/** A port whose device is told by hand that the moment is over. */
async function open(features = BASIC | VIRTIO_RING_F_EVENT_IDX) {
  const moments: (() => void)[] = []
  const raw = new RawDriver({ device: { soon: (fn) => void moments.push(fn) }, tireless: true })
  const { chardev } = await raw.host({ name: 'org.test.0' })
  raw.start(features).ready().open(1)
  const transmitq = raw.queue(transmitqOf(1))
  let sent = 0
  /** Sends `count` buffers of `len` bytes, and notifies where the device has asked for that; whether it has. */
  const write = (count: number, len = 1): boolean => {
    const before = transmitq.availIdx
    transmitq.takeUsed()
    for (let i = 0; i < count; i++) transmitq.put(new Uint8Array(len).fill(sent++))
    const asked =
      (features & VIRTIO_RING_F_EVENT_IDX) !== 0n
        ? needEvent(transmitq.availEvent, transmitq.availIdx, before)
        : (transmitq.usedFlags & NO_NOTIFY) === 0
    if (asked) transmitq.notify()
    return asked
  }
  /** The moment is over; whether there was one. */
  const pass = (): boolean => {
    const due = moments.splice(0)
    for (const fn of due) fn()
    return due.length > 0
  }
  const received = (): number => chardev.received.reduce((sum, { length }) => sum + length, 0)
  return { raw, chardev, transmitq, write, pass, received, moments }
}

it.each([
  ['with EVENT_IDX', BASIC | VIRTIO_RING_F_EVENT_IDX],
  ['without', BASIC],
])('one notification is enough for as long as the driver goes on: %s', async (_, features) => {
  const { chardev, transmitq, write, pass, received, moments } = await open(features)
  expect(write(20)).toBe(true)
  for (let i = 1; i <= 20; i++) {
    expect(write(6)).toBe(false)
    expect(received()).toBe(6 * i + 14)
    expect(pass()).toBe(true)
    expect(received()).toBe(6 * i + 20)
    expect(transmitq.takeUsed().length).toBe(6)
    expect(moments.length).toBe(1)
  }
  expect(Buffer.concat(chardev.received)).toEqual(Buffer.from(Array.from({ length: 140 }, (_byte, i) => i)))
})

it('what comes alone, or by threes, is notified of and sent at once', async () => {
  const { write, pass, received } = await open()
  for (let i = 1; i <= 5; i++) {
    expect(write(1)).toBe(true)
    expect(write(3)).toBe(true)
    expect(received()).toBe(4 * i)
    expect(pass()).toBe(false)
  }
})

it('two large ones are worth a look, one is not', async () => {
  const { write, pass } = await open()
  write(1, 4096)
  expect(pass()).toBe(false)
  for (let i = 0; i < 3; i++) write(3, 4096)
  expect(pass()).toBe(false)
  // Without a notification between them, so that they are found together.
  const { write: writeLarge, pass: passLarge, raw, transmitq } = await open()
  const segments = Array.from({ length: 4 }, (_, i) => ({ address: transmitq.pageAddress(i), len: 4096 }))
  transmitq.next = 0
  transmitq.chain(segments)
  transmitq.chain(segments)
  transmitq.notify()
  expect(passLarge()).toBe(true)
  expect(writeLarge(1)).toBe(true)
  expect(raw.device.faults).toBe(0)
})

it('when the driver stops it is asked to notify, and is looked after more and more seldom', async () => {
  const { write, pass, received } = await open()
  const tried = []
  for (let i = 1; i <= 16; i++) {
    expect(write(5)).toBe(true)
    expect(received()).toBe(5 * i)
    // Nothing has come: the driver has to be asked.
    tried.push(pass())
  }
  expect(tried.flatMap((did, i) => (did ? [i] : []))).toEqual([0, 2, 5, 10])
  for (let i = 0; i < 3; i++) write(5)
  // It goes on this time: so do we.
  expect(write(5)).toBe(true)
  for (let i = 0; i < 5; i++) {
    expect(write(4)).toBe(false)
    expect(pass()).toBe(true)
  }
})

it.each([
  ['half the ring has filled', 65],
  ['all was there that the driver has', 8],
])('it is tried more and more seldom where %s each time', async (_, count) => {
  const { write, pass, received } = await open()
  let tried = 0
  for (let i = 1; i <= 200; i++) {
    write(count)
    if (pass()) tried++
    expect(received()).toBe(count * i)
  }
  expect(tried).toBeGreaterThan(2)
  expect(tried).toBeLessThan(10)
})

it.each([
  ['the port is removed', (raw: RawDriver) => raw.device.removePort(1)],
  ['the driver resets the device', (raw: RawDriver) => raw.transport.writeStatus(0)],
])('nothing is touched any more when %s meanwhile', async (_, strike) => {
  const { raw, transmitq, write, pass, received } = await open()
  expect(write(4)).toBe(true)
  strike(raw)
  const { usedIdx } = transmitq
  write(4)
  expect(pass()).toBe(true)
  expect([received(), transmitq.usedIdx, raw.device.faults]).toEqual([4, usedIdx, 0])
})

it('other ports hear that the event loop is needed here', async () => {
  let now = 1e9
  vi.spyOn(performance, 'now').mockImplementation(() => now)
  const { write, pass } = await open()
  const other = {}
  write(4)
  alone(other)
  now += 20
  expect(alone(other)).toBe(true)
  expect(pass()).toBe(true)
  expect(alone(other)).toBe(false)
})

it('a queue of one entry works', async () => {
  const raw = new RawDriver()
  const { chardev } = await raw.host({ name: 'org.test.0' })
  raw.negotiate(BASIC | VIRTIO_RING_F_EVENT_IDX)
  for (let i = 0; i < raw.device.queueCount; i++) raw.enable(i, i === transmitqOf(1) ? 1 : undefined)
  raw.transport.writeStatus(15)
  raw.ready().open(1)
  const transmitq = raw.queue(transmitqOf(1))
  for (let i = 0; i < 3; i++) {
    transmitq.next = 0
    transmitq.put(Buffer.from('x'))
    transmitq.notify()
    expect(transmitq.takeUsed().length).toBe(1)
  }
  expect(chardev.text).toBe('xxx')
})
