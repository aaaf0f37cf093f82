/** Control messages: what a driver hears and when, and the traps of drivers that say odd things. */

import { describe, expect, it } from 'vitest'
import {
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  encodeControl,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from '../../src/spec/console.ts'
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/spec/split.ts'
import { settle } from '../support/pair.ts'
import { RawDriver } from '../support/raw-driver.ts'

describe('what a driver hears', () => {
  it('nothing before DEVICE_READY, then each port, then about a port what it is once it is ready', async () => {
    const raw = new RawDriver()
    await raw.host({ name: 'org.test.0' })
    await raw.host({ console: true, name: 'tty', policy: 'drop-oldest' })
    raw.start()
    for (let i = 0; i < 8; i++) raw.queue(CONTROL_RECEIVEQ).postPage(i)
    raw.queue(CONTROL_RECEIVEQ).notify()
    expect(raw.messages()).toEqual([])
    raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
    expect(raw.messages()).toEqual(['DEVICE_ADD 0 1', 'DEVICE_ADD 1 1'])
    raw.control(0, VIRTIO_CONSOLE_PORT_READY, 1)
    expect(raw.messages()).toEqual(['CONSOLE_PORT 0 1', 'PORT_NAME 0 1 tty', 'PORT_OPEN 0 1'])
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    expect(raw.messages()).toEqual(['PORT_NAME 1 1 org.test.0', 'PORT_OPEN 1 1'])
  })

  it('PORT_NAME carries no NUL', async () => {
    const raw = new RawDriver()
    await raw.host({ name: 'grüße' })
    raw.start().ready()
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    const name = raw.messages().find((text) => text.startsWith('PORT_NAME'))!
    expect(Buffer.from(name.split(' ')[3]!, 'latin1').toString()).toBe('grüße')
  })

  it('a port added later, and removed, while the driver runs', async () => {
    const raw = new RawDriver()
    raw.start().ready()
    expect(raw.messages()).toEqual([])
    const { port } = await raw.host({ name: 'late' }, false)
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1'])
    raw.open(1)
    // Its host is not there yet: no OPEN.
    expect(raw.messages()).toEqual(['PORT_NAME 1 1 late'])
    raw.device.removePort(port.id)
    expect(raw.messages()).toEqual(['DEVICE_REMOVE 1 1'])
  })

  it('no word about a port that came and went before DEVICE_READY', async () => {
    const raw = new RawDriver()
    raw.start()
    const { port } = await raw.host()
    raw.device.removePort(port.id)
    raw.ready()
    expect(raw.messages()).toEqual([])
  })

  it('a connection that went and came back is told as both, however few buffers there are', async () => {
    const raw = new RawDriver({ tireless: true })
    const { chardev } = await raw.host()
    raw.start().ready(1)
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1'])
    raw.queue(CONTROL_RECEIVEQ).notify()
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    expect(raw.messages()).toEqual(['PORT_OPEN 1 1'])
    // The buffer is back, but a thousand changes happen before there is more than one.
    for (let i = 0; i < 1000; i++) {
      chardev.setConnected(false)
      chardev.setConnected(true)
    }
    expect(raw.messages()).toEqual(['PORT_OPEN 1 0'])
    raw.queue(CONTROL_RECEIVEQ).notify()
    // This time it is not given back until all is over.
    expect(raw.queue(CONTROL_RECEIVEQ).takeUsed()).toEqual([{ id: 0, len: 8 }])
    for (let i = 0; i < 1000; i++) {
      chardev.setConnected(false)
      chardev.setConnected(true)
    }
    raw.queue(CONTROL_RECEIVEQ).postPage(0)
    raw.queue(CONTROL_RECEIVEQ).notify()
    expect(raw.messages()).toEqual(['PORT_OPEN 1 0'])
    raw.queue(CONTROL_RECEIVEQ).notify()
    expect(raw.messages()).toEqual(['PORT_OPEN 1 1'])
    raw.queue(CONTROL_RECEIVEQ).notify()
    expect(raw.messages()).toEqual([])
  })

  it('a port removed and added again under its number is told as both, with no buffer in between', async () => {
    const raw = new RawDriver()
    const { port } = await raw.host({ name: 'first' })
    raw.start().ready(1)
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1'])
    raw.queue(CONTROL_RECEIVEQ).notify()
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    raw.device.removePort(port.id)
    await raw.host({ name: 'second' })
    const heard: string[] = []
    for (let i = 0; i < 6; i++) {
      heard.push(...raw.messages())
      raw.queue(CONTROL_RECEIVEQ).notify()
    }
    expect(heard).toEqual(['PORT_NAME 1 1 first', 'DEVICE_REMOVE 1 1', 'DEVICE_ADD 1 1'])
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    expect(raw.messages()).toEqual(['PORT_NAME 1 1 second'])
  })

  it('a late PORT_READY of the port before does not hide the new one', async () => {
    const raw = new RawDriver()
    const { port } = await raw.host({ name: 'first' })
    raw.start().ready(1)
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1'])
    // No buffer: REMOVE and ADD both have to wait, and then the answer to the first ADD comes.
    const used = raw.queue(CONTROL_RECEIVEQ).availIdx
    raw.queue(CONTROL_RECEIVEQ).setAvailIdx(used - 1)
    raw.device.removePort(port.id)
    await raw.host({ name: 'second' })
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    raw.queue(CONTROL_RECEIVEQ).setAvailIdx(used)
    const heard: string[] = []
    for (let i = 0; i < 6; i++) {
      raw.queue(CONTROL_RECEIVEQ).notify()
      heard.push(...raw.messages())
    }
    expect(heard.slice(0, 2)).toEqual(['DEVICE_REMOVE 1 1', 'DEVICE_ADD 1 1'])
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    for (let i = 0; i < 3; i++) {
      raw.queue(CONTROL_RECEIVEQ).notify()
      heard.push(...raw.messages())
    }
    expect(heard).toContain('PORT_NAME 1 1 second')
  })

  it('RESIZE in either order, for consoles and with F_SIZE only', async () => {
    for (const [resizeOrder, hex] of [
      ['cols-rows', '50001900'],
      ['rows-cols', '19005000'],
    ] as const) {
      const raw = new RawDriver({ device: { maxPorts: 4, resizeOrder } })
      await raw.host({ console: true, policy: 'drop-oldest' })
      raw.start().ready()
      raw.device.resizePort(0, 80, 25)
      raw.control(0, VIRTIO_CONSOLE_PORT_READY, 1)
      const resize = raw.messages().find((text) => text.startsWith('RESIZE'))!
      expect(Buffer.from(resize.slice('RESIZE 0 0 '.length), 'latin1').toString('hex')).toBe(hex)
    }
    const raw = new RawDriver()
    await raw.host({ console: true, policy: 'drop-oldest' })
    raw.start((1n << 32n) | 2n).ready()
    raw.control(0, VIRTIO_CONSOLE_PORT_READY, 1)
    raw.device.resizePort(0, 80, 25)
    expect(raw.messages().filter((text) => text.startsWith('RESIZE'))).toEqual([])
  })
})

describe('odd drivers', () => {
  it('any control message from a lying driver leaves the device alive', async () => {
    const raw = new RawDriver({ tireless: true })
    const { chardev, port } = await raw.host({ name: 'alive' })
    raw.start().ready()
    for (const id of [0, 1, 2, 3, 4, 5, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff])
      for (let event = 0; event < 12; event++) for (const value of [0, 1, 2, 0xffff]) raw.control(id, event, value)
    raw.open(1)
    raw.send(5, Buffer.from('still here'))
    expect(chardev.text).toBe('still here')
    expect(port.guestOpen).toBe(true)
    expect(raw.needsReset).toBe(false)
    expect(raw.device.ignoredControl).toBeGreaterThan(0)
  })

  it('10^5 DEVICE_READY cost no memory and end in one DEVICE_ADD', async () => {
    const raw = new RawDriver()
    await raw.host()
    raw.start()
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < 100_000; i++) {
      raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
      // What was not done in its turn is not forgotten, and the guest may not have more on the way than its queue.
      if (i % 50 === 0) await settle(1)
    }
    await settle()
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 << 20)
    expect(raw.queue(CONTROL_TRANSMITQ).usedIdx).toBe(100_000 & 0xffff)
    for (let i = 0; i < 8; i++) raw.queue(CONTROL_RECEIVEQ).postPage(i)
    raw.queue(CONTROL_RECEIVEQ).notify()
    expect(raw.messages()).toEqual(['DEVICE_ADD 1 1'])
  })

  it('each control chain is used exactly once, with length 0, at once', async () => {
    const raw = new RawDriver()
    await raw.host()
    raw.start().ready()
    const queue = raw.queue(CONTROL_TRANSMITQ)
    queue.takeUsed()
    for (const message of [
      encodeControl(1, 3, 1),
      encodeControl(1, 6, 1),
      new Uint8Array(1),
      encodeControl(9, 99, 9),
    ]) {
      raw.send(CONTROL_TRANSMITQ, message)
      expect(queue.takeUsed()).toEqual([{ id: 0, len: 0 }])
    }
  })

  it('OPEN before READY is not believed', async () => {
    const raw = new RawDriver()
    const { port } = await raw.host()
    raw.start().ready()
    raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
    expect(port.guestOpen).toBe(false)
    raw.open(1)
    expect(port.guestOpen).toBe(true)
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 0)
    expect(port.guestOpen).toBe(false)
  })

  it('messages the device alone may say are ignored', async () => {
    const raw = new RawDriver()
    await raw.host()
    raw.start().ready()
    raw.messages()
    const before = raw.device.ignoredControl
    raw.control(1, VIRTIO_CONSOLE_DEVICE_ADD, 1)
    raw.control(1, VIRTIO_CONSOLE_PORT_NAME, 1)
    expect(raw.device.ignoredControl - before).toBe(2)
    expect(raw.messages()).toEqual([])
  })

  it('a message cut into descriptors of one byte is one message; a longer buffer is read to its eighth byte', async () => {
    const raw = new RawDriver()
    const { port } = await raw.host()
    raw.start().ready()
    const queue = raw.queue(CONTROL_TRANSMITQ)
    queue.takeUsed()
    queue.page(0).set(encodeControl(1, VIRTIO_CONSOLE_PORT_READY, 1))
    for (let i = 0; i < 8; i++) queue.desc(i, queue.pageAddress(0) + i, 1, i < 7 ? VIRTQ_DESC_F_NEXT : 0, i + 1)
    queue.avail(0)
    queue.notify()
    expect(port.guestReady).toBe(true)
    const long = new Uint8Array(4096).fill(0xee)
    long.set(encodeControl(1, VIRTIO_CONSOLE_PORT_OPEN, 1))
    raw.send(CONTROL_TRANSMITQ, long)
    expect(port.guestOpen).toBe(true)
    expect(queue.takeUsed()).toEqual([
      { id: 0, len: 0 },
      { id: 0, len: 0 },
    ])
  })

  for (const len of [0, 1, 7, 8, 9, 12])
    it(`control receive buffers of ${len} bytes: nothing is written past them (CVE-2015-5745)`, async () => {
      const raw = new RawDriver()
      await raw.host({ name: 'a name of some length' })
      raw.start()
      const queue = raw.queue(CONTROL_RECEIVEQ)
      for (let i = 0; i < 8; i++) {
        queue.page(i).fill(0xaa)
        queue.postPage(i, len)
      }
      queue.notify()
      raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
      raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
      for (const used of queue.takeUsed()) expect(used.len).toBeLessThanOrEqual(len)
      for (let i = 0; i < 8; i++)
        expect(
          queue
            .page(i)
            .subarray(len)
            .every((byte) => byte === 0xaa),
        ).toBe(true)
      expect(raw.needsReset).toBe(false)
      // In proper buffers everything can be had again.
      for (let i = 8; i < 16; i++) queue.postPage(i)
      queue.notify()
      for (let i = 0; i < 8; i++) {
        raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
        raw.messages()
      }
      raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
      expect(raw.messages()).toContain('PORT_NAME 1 1 a name of some length')
    })

  it('control receive buffers split over descriptors, and readable ones, which cannot be filled', async () => {
    const raw = new RawDriver()
    await raw.host({ name: 'split' })
    raw.start()
    const queue = raw.queue(CONTROL_RECEIVEQ)
    queue.desc(20, queue.pageAddress(20), 4096, 0)
    queue.avail(20)
    for (let i = 0; i < 13; i++)
      queue.desc(i, queue.pageAddress(i), 1, VIRTQ_DESC_F_WRITE | (i < 12 ? VIRTQ_DESC_F_NEXT : 0), i + 1)
    queue.avail(0)
    queue.notify()
    raw.control(0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1)
    expect(queue.takeUsed()).toEqual([
      { id: 20, len: 0 },
      { id: 0, len: 8 },
    ])
    queue.avail(0)
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    expect(queue.takeUsed()).toEqual([{ id: 0, len: 13 }])
    expect(Array.from({ length: 13 }, (_, i) => queue.page(i)[0]!).slice(8)).toEqual([...Buffer.from('split')])
  })
})
