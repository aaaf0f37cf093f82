/** A driver that comes back from sleep without DEVICE_READY, as Linux does, and the ports it remembers or not. */

import { describe, expect, it } from 'vitest'
import { CONTROL_RECEIVEQ, VIRTIO_CONSOLE_DEVICE_READY } from '../../src/spec/console.ts'
import { until } from '../support/pair.ts'
import { RawDriver } from '../support/raw-driver.ts'

describe('a driver that comes back', () => {
  /** A guest that knew ports 1 to 3, and is now at the point where Linux says which ones it remembers. */
  async function hibernated(): Promise<{ raw: RawDriver; text: () => string }> {
    const raw = new RawDriver()
    const { chardev } = await raw.host({ name: 'known' })
    await raw.host({ name: 'also' })
    await raw.host({ name: 'gone' })
    raw.start().ready()
    for (const id of [1, 2, 3]) raw.open(id)
    raw.reset()
    raw.device.removePort(3)
    raw.start()
    for (let i = 0; i < 8; i++) raw.queue(CONTROL_RECEIVEQ).postPage(i)
    raw.queue(CONTROL_RECEIVEQ).notify()
    expect(raw.messages()).toEqual([])
    return { raw, text: () => chardev.text }
  }

  it('READY and OPEN without DEVICE_READY, as Linux says them after hibernation, are enough', async () => {
    const { raw, text } = await hibernated()
    raw.open(1)
    expect(raw.messages()).toEqual(['PORT_NAME 1 1 known', 'PORT_OPEN 1 1'])
    raw.send(5, Buffer.from('woke up'))
    expect(text()).toBe('woke up')
    expect(raw.device.port(1)!.guestOpen).toBe(true)
    expect(raw.device.port(2)!.guestOpen).toBe(false)
  })

  it('a port that went while the guest was hibernating is taken back, wherever it stands in the row', async () => {
    for (const order of [[1, 3], [3, 1], [3]]) {
      const { raw } = await hibernated()
      for (const id of order) raw.open(id)
      expect(raw.messages(), `order ${order.join()}`).toContain('DEVICE_REMOVE 3 1')
    }
  })

  it('a port that came while the guest was hibernating is announced once it has said what it remembers', async () => {
    const { raw } = await hibernated()
    await raw.host({ name: 'other', id: 3 })
    for (const id of [1, 2, 3]) raw.open(id)
    // Its number was another port's: that one is taken back first.
    expect(raw.messages().filter((text) => text.includes(' 3 '))).toEqual(['DEVICE_REMOVE 3 1', 'DEVICE_ADD 3 1'])
    expect(raw.device.port(3)!.guestReady).toBe(false)
    // One with a number that it does not know waits until it has said all; a second, no more.
    raw.device.removePort(2)
    await raw.host({ name: 'fresh', id: 2 })
    expect(raw.messages()).toEqual(['DEVICE_REMOVE 2 1'])
    await until(() => raw.messages().includes('DEVICE_ADD 2 1'), 'the new port is announced', 3000)
  })

  it('Linux that remembers no port says nothing when it comes back: after its time it hears of those that are there', async () => {
    const raw = new RawDriver()
    await raw.host({ name: 'early' })
    raw.start().ready()
    raw.reset()
    raw.start()
    for (let i = 0; i < 8; i++) raw.queue(CONTROL_RECEIVEQ).postPage(i)
    raw.queue(CONTROL_RECEIVEQ).notify()
    await raw.host({ name: 'plugged' })
    expect(raw.messages()).toEqual([])
    const heard: string[] = []
    await until(() => heard.push(...raw.messages()) >= 2, 'the ports are announced', 3000)
    expect(heard).toEqual(['DEVICE_ADD 1 1', 'DEVICE_ADD 2 1'])
    await raw.host({ name: 'later' })
    expect(raw.messages()).toEqual(['DEVICE_ADD 3 1'])
    raw.open(2)
    expect(raw.messages()).toEqual(['PORT_NAME 2 1 plugged', 'PORT_OPEN 2 1'])
    // It was only slow: nothing is added twice. When it asks again, it wants to hear again.
    raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
    expect(raw.messages()).toEqual([])
    raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1', 'DEVICE_ADD 2 1', 'DEVICE_ADD 3 1'])
  })

  it('a driver without buffers, and one that failed, hear nothing however long they are silent', async () => {
    const raw = new RawDriver()
    await raw.host({ name: 'early' })
    raw.start()
    const failed = new RawDriver()
    await failed.host({ name: 'early' })
    failed.start()
    for (let i = 0; i < 8; i++) failed.queue(CONTROL_RECEIVEQ).postPage(i)
    failed.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 0)
    await new Promise((resolve) => void setTimeout(resolve, 1200))
    expect(failed.messages()).toEqual([])
    // The first buffers start the time anew: DEVICE_READY may be next.
    for (let i = 0; i < 8; i++) raw.queue(CONTROL_RECEIVEQ).postPage(i)
    raw.queue(CONTROL_RECEIVEQ).notify()
    expect(raw.messages()).toEqual([])
    raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1'])
  })
})
