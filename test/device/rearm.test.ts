/**
 * Between the last look at a ring and the wish to be notified the driver may add a buffer, and has no reason to notify.
 * Each user of a queue looks once more after re-arming, and such a buffer is taken (§2.7.7.2); the driver strikes here at
 * exactly that moment.
 */
import { afterEach, expect, it, vi } from 'vitest'
import { DeviceQueue } from '../../src/ring/device-queue.ts'
import {
  CONTROL_TRANSMITQ,
  encodeControl,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_PORT_OPEN,
} from '../../src/spec/console.ts'
import { RawDriver } from '../support/raw-driver.ts'

afterEach(() => vi.restoreAllMocks())

/** Does something in the moment before queue `index` asks for notifications the next time. */
function before(index: number, strike: () => void): () => boolean {
  // oxlint-disable-next-line typescript/unbound-method -- called with a queue below
  const real = DeviceQueue.prototype.enableNotify
  let struck = false
  vi.spyOn(DeviceQueue.prototype, 'enableNotify').mockImplementation(function (this: DeviceQueue, ...words) {
    if (this.index === index && !struck) {
      struck = true
      strike()
    }
    return real.apply(this, words)
  })
  return () => struck
}

async function open(): Promise<{ raw: RawDriver; chardev: Awaited<ReturnType<RawDriver['host']>>['chardev'] }> {
  const raw = new RawDriver()
  const { chardev } = await raw.host({ id: 1, name: 'a' })
  raw.start().ready().open(1)
  return { raw, chardev }
}

it('a receive buffer that comes while the port gives up waiting for one', async () => {
  const { raw, chardev } = await open()
  const queue = raw.queue(receiveqOf(1))
  const struck = before(receiveqOf(1), () => queue.postPage(0))
  chardev.send('hello')
  // The device has to be woken once, and finds no buffer then.
  queue.notify()
  expect(struck()).toBe(true)
  expect(queue.takeUsed()).toEqual([{ id: 0, len: 5 }])
})

it('a transmit buffer that comes while the port has sent all', async () => {
  const { raw, chardev } = await open()
  const queue = raw.queue(transmitqOf(1))
  const struck = before(transmitqOf(1), () => queue.put(Buffer.from('two')))
  queue.put(Buffer.from('one'))
  queue.notify()
  expect(struck()).toBe(true)
  expect(chardev.text).toBe('onetwo')
})

it('a control message that comes while the device has answered all', async () => {
  const { raw } = await open()
  const queue = raw.queue(CONTROL_TRANSMITQ)
  const closing = encodeControl(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
  const struck = before(CONTROL_TRANSMITQ, () => {
    queue.page(1).set(closing)
    queue.desc(1, queue.pageAddress(1), closing.length, 0)
    queue.avail(1)
  })
  raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
  expect(struck()).toBe(true)
  expect(raw.device.ports.find(({ id }) => id === 1)?.guestOpen).toBe(false)
})
