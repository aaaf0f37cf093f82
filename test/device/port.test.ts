/** One port and its two rings: policies and their exact counters, closing, removal, and what the ring is told. */

import { describe, expect, it } from 'vitest'
import { receiveqOf, transmitqOf, VIRTIO_CONSOLE_PORT_OPEN, VIRTIO_CONSOLE_PORT_READY } from '../../src/spec/console.ts'
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/spec/split.ts'
import type { PortSettings } from '../../src/device/port-settings.ts'
import { settle, until } from '../support/pair.ts'
import { BASIC, RawDriver, type RawOptions } from '../support/raw-driver.ts'

/** A driver that has port 1 open, and the test behind it. */
async function open(settings: Partial<Omit<PortSettings, 'id'>> = {}, options: RawOptions = {}, connected = true) {
  const raw = new RawDriver(options)
  const { port, chardev } = await raw.host(
    { name: 'org.test.0', ...settings, ...(settings.console ? { id: 1 } : {}) },
    connected,
  )
  raw.start().ready().open(1)
  raw.messages()
  return { raw, port, chardev, transmitq: raw.queue(transmitqOf(1)), receiveq: raw.queue(receiveqOf(1)) }
}

/** Makes `count` buffers of `len` bytes available, filled with their number. */
function fill(queue: RawDriver['queue'] extends (i: number) => infer Q ? Q : never, count: number, len: number): void {
  for (let i = 0; i < count; i++) {
    queue.page(i).fill(i + 1, 0, len)
    queue.desc(i, queue.pageAddress(i), len, 0)
    queue.avail(i)
  }
  queue.notify()
}

describe('guest to host', () => {
  it('used.len is 0 for transmit chains', async () => {
    const { transmitq } = await open()
    fill(transmitq, 5, 100)
    expect(transmitq.takeUsed()).toEqual([0, 1, 2, 3, 4].map((id) => ({ id, len: 0 })))
  })

  it('chunks keep their order under back-pressure; a buffer is given back when its last byte is taken, not before', async () => {
    const { transmitq, chardev, port } = await open()
    chardev.room = 150
    fill(transmitq, 4, 100)
    expect(transmitq.takeUsed().map(({ id }) => id)).toEqual([0])
    chardev.setRoom(49)
    expect(transmitq.takeUsed()).toEqual([])
    chardev.setRoom(1)
    expect(transmitq.takeUsed().map(({ id }) => id)).toEqual([1])
    chardev.setRoom(Infinity)
    expect(transmitq.takeUsed().map(({ id }) => id)).toEqual([2, 3])
    const expected = Buffer.concat([1, 2, 3, 4].map((n) => Buffer.alloc(100, n)))
    expect(Buffer.concat(chardev.received)).toEqual(expected)
    expect(port.stats()).toMatchObject({ guestToHostBytes: 400, guestToHostDropped: 0, transmitBuffers: 4 })
  })

  it('a chain of many descriptors, a writable one among them, and one without any byte', async () => {
    const { transmitq, chardev, raw } = await open()
    transmitq.page(0).set(Buffer.from('abcdef'))
    for (const [i, [at, len]] of [
      [0, 1],
      [1, 3],
      [4, 0],
      [4, 2],
    ].entries())
      transmitq.desc(i, transmitq.pageAddress(0) + at!, len!, VIRTQ_DESC_F_NEXT, i + 1)
    transmitq.desc(4, transmitq.pageAddress(1), 4096, VIRTQ_DESC_F_WRITE)
    transmitq.avail(0)
    transmitq.desc(10, transmitq.pageAddress(2), 0, 0)
    transmitq.avail(10)
    transmitq.notify()
    expect(chardev.text).toBe('abcdef')
    expect(transmitq.takeUsed()).toEqual([
      { id: 0, len: 0 },
      { id: 10, len: 0 },
    ])
    expect(raw.needsReset).toBe(false)
  })

  for (const [policy, expected] of [
    ['drop-newest', 'abcdefghij'],
    ['drop-oldest', 'qrstuvwxyz'],
    ['discard', ''],
  ] as const)
    it(`${policy}: every buffer comes back at once, and the counters are exact`, async () => {
      const { transmitq, chardev, port, raw } = await open({ policy, buffer: 10 })
      chardev.room = 0
      transmitq.page(0).set(Buffer.from('abcdefghijklmnopqrstuvwxyz'))
      for (let i = 0; i < 26; i += 2) {
        transmitq.desc(i, transmitq.pageAddress(0) + i, 2, 0)
        transmitq.avail(i)
      }
      transmitq.notify()
      expect(transmitq.takeUsed()).toHaveLength(13)
      const held = expected.length
      expect(port.stats()).toMatchObject({ guestToHostBytes: 0, guestToHostDropped: 26 - held, held })
      chardev.setRoom(3)
      expect(chardev.text).toBe(expected.slice(0, 3))
      chardev.setRoom(Infinity)
      expect(chardev.text).toBe(expected)
      expect(port.stats()).toMatchObject({ guestToHostBytes: held, guestToHostDropped: 26 - held, held: 0 })
      // And then it flows again.
      transmitq.page(1).set(Buffer.from('more'))
      transmitq.desc(30, transmitq.pageAddress(1), 4, 0)
      transmitq.avail(30)
      transmitq.notify()
      expect(chardev.text).toBe(`${expected}more`)
      expect(raw.needsReset).toBe(false)
    })

  it('one chain of a megabyte to a drop policy of ten bytes: the last ten are held', async () => {
    const { transmitq, chardev, port } = await open({ policy: 'drop-oldest', buffer: 10 })
    chardev.room = 0
    for (let i = 0; i < 128; i++) transmitq.page(i).fill(i)
    for (let i = 0; i < 128; i++)
      transmitq.desc(i, transmitq.pageAddress(i), 4096, i < 127 ? VIRTQ_DESC_F_NEXT : 0, i + 1)
    transmitq.avail(0)
    transmitq.notify()
    expect(port.stats()).toMatchObject({ held: 10, guestToHostDropped: 128 * 4096 - 10 })
    chardev.setRoom(Infinity)
    expect(Buffer.concat(chardev.received)).toEqual(Buffer.alloc(10, 127))
  })

  it('a console is never held, whatever the host does', async () => {
    const { transmitq, chardev, port } = await open({ console: true, policy: 'drop-oldest', buffer: 64 }, {}, false)
    for (const act of [
      () => {},
      () => chardev.setConnected(true),
      () => (chardev.room = 0),
      () => chardev.setConnected(false),
    ]) {
      act()
      fill(transmitq, 20, 50)
      expect(transmitq.takeUsed()).toHaveLength(20)
    }
    const { guestToHostBytes, guestToHostDropped, held } = port.stats()
    expect(guestToHostBytes + guestToHostDropped + held).toBe(4 * 20 * 50)
    expect(held).toBe(64)
    expect(port.openForGuest).toBe(true)
  })

  it('memory held per port is bounded whatever the guest sends', async () => {
    const { transmitq, chardev, port } = await open({ policy: 'drop-oldest', buffer: 1000 }, { tireless: true })
    chardev.room = 0
    for (let i = 0; i < 500; i++) {
      fill(transmitq, 64, 4096)
      transmitq.takeUsed()
      expect(port.stats().held).toBe(1000)
    }
    expect(port.stats().guestToHostDropped).toBe(500 * 64 * 4096 - 1000)
  })

  it('descriptor len never sizes an allocation', async () => {
    const { transmitq, raw, chardev } = await open({ policy: 'drop-newest', buffer: 10 })
    chardev.room = 0
    const before = process.memoryUsage()
    transmitq.desc(0, transmitq.pageAddress(0), 0xffffffff, 0)
    transmitq.avail(0)
    transmitq.notify()
    expect(raw.needsReset).toBe(true)
    const after = process.memoryUsage()
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(1 << 20)
  })

  it('with EVENT_IDX an interrupt comes for the entry asked for, and for no other', async () => {
    const { raw, transmitq } = await open()
    raw
      .start(BASIC | (1n << 29n))
      .ready()
      .open(1)
    const queue = raw.queue(5)
    expect(queue).not.toBe(transmitq)
    raw.interrupts.length = 0
    queue.setUsedEvent(2)
    fill(queue, 2, 10)
    expect(raw.interrupts).toEqual([])
    fill(queue, 1, 10)
    expect(raw.interrupts).toEqual([5])
    fill(queue, 100, 10)
    expect(raw.interrupts).toEqual([5])
  })

  it('without EVENT_IDX the flag says it', async () => {
    const { raw, transmitq } = await open()
    raw.interrupts.length = 0
    transmitq.setAvailFlags(1)
    fill(transmitq, 3, 10)
    expect(raw.interrupts).toEqual([])
    transmitq.setAvailFlags(0)
    fill(transmitq, 3, 10)
    expect(raw.interrupts).toEqual([5])
    // And what is written to used_event then means nothing.
    transmitq.setUsedEvent(0x7fff)
    fill(transmitq, 1, 10)
    expect(raw.interrupts).toEqual([5, 5])
    expect(transmitq.usedFlags).toBe(0)
  })
})

describe('host to guest', () => {
  it('fills buffers to the brim, and gives back none that is empty; unfilled chains stay available', async () => {
    const { receiveq, chardev, port } = await open()
    for (let i = 0; i < 8; i++) receiveq.postPage(i, 100)
    receiveq.notify()
    expect(receiveq.takeUsed()).toEqual([])
    chardev.send(Buffer.alloc(250, 7))
    await settle()
    expect(receiveq.takeUsed()).toEqual([
      { id: 0, len: 100 },
      { id: 1, len: 100 },
      { id: 2, len: 50 },
    ])
    chardev.send('x')
    await settle()
    expect(receiveq.takeUsed()).toEqual([{ id: 3, len: 1 }])
    expect(port.stats()).toMatchObject({ hostToGuestBytes: 251, receiveBuffers: 4 })
  })

  it('no host byte is lost while the port has no buffers / is not ready / is closed (paused instead)', async () => {
    const raw = new RawDriver()
    const { chardev } = await raw.host()
    chardev.send('1')
    raw.start().ready()
    chardev.send('2')
    raw.control(1, VIRTIO_CONSOLE_PORT_READY, 1)
    chardev.send('3')
    await settle()
    const receiveq = raw.queue(receiveqOf(1))
    for (let i = 0; i < 2; i++) receiveq.postPage(i, 4)
    receiveq.notify()
    expect(chardev.waiting).toBe(3)
    expect(chardev.reading).toBe(false)
    raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
    chardev.send('4567')
    await settle()
    raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
    chardev.send('89')
    await settle()
    const text = (): string =>
      receiveq
        .takeUsed()
        .map(({ id, len }) => Buffer.from(receiveq.page(id).subarray(0, len)).toString())
        .join('')
    expect(text()).toBe('1234567')
    raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
    expect(receiveq.takeUsed()).toEqual([])
    receiveq.postPage(0, 4)
    receiveq.notify()
    await settle()
    expect(text()).toBe('89')
  })

  it('buffers without a writable byte go back as they came, and hold nothing up', async () => {
    const { receiveq, chardev } = await open()
    for (let i = 0; i < 20; i++) {
      receiveq.desc(i, receiveq.pageAddress(i), 100, 0)
      receiveq.avail(i)
    }
    receiveq.postPage(20)
    receiveq.notify()
    chardev.send('through')
    await settle()
    const used = receiveq.takeUsed()
    expect(used.slice(0, 20).every(({ len }) => len === 0)).toBe(true)
    expect(used.at(-1)).toEqual({ id: 20, len: 7 })
  })
})

describe('closing', () => {
  async function left(onClose: PortSettings['onClose']) {
    const pair = await open({ onClose, drainMs: 30 })
    pair.chardev.room = 0
    fill(pair.transmitq, 2, 10)
    pair.transmitq.takeUsed()
    pair.chardev.send('for the guest')
    return pair
  }

  it('host gone, unset: what it did not take is dropped and counted, and the next hears nothing of it', async () => {
    const { chardev, transmitq, port } = await left(undefined)
    chardev.setConnected(false)
    expect(transmitq.takeUsed()).toHaveLength(2)
    expect(port.stats()).toMatchObject({ guestToHostDropped: 20, guestToHostBytes: 0 })
    // The guest has yet to hear of it, or is one that does not care.
    fill(transmitq, 3, 10)
    expect(transmitq.takeUsed()).toHaveLength(3)
    expect(port.stats()).toMatchObject({ guestToHostDropped: 50, guestToHostBytes: 0 })
    chardev.room = Infinity
    chardev.setConnected(true)
    expect(chardev.text).toBe('')
  })

  it('host gone, keep: the next one gets it', async () => {
    const { chardev, transmitq, port } = await left('keep')
    chardev.setConnected(false)
    await settle()
    expect(transmitq.takeUsed()).toHaveLength(0)
    chardev.room = Infinity
    chardev.setConnected(true)
    expect(Buffer.concat(chardev.received).length).toBe(20)
    expect(port.stats()).toMatchObject({ guestToHostDropped: 0, guestToHostBytes: 20 })
    // Also what is written while nobody is there.
    chardev.setConnected(false)
    fill(transmitq, 3, 10)
    chardev.setConnected(true)
    expect(port.stats()).toMatchObject({ guestToHostDropped: 0, guestToHostBytes: 50 })
  })

  it('host gone, drain: it waits for the next, but not longer than drain-ms', async () => {
    const late = await left('drain')
    late.chardev.setConnected(false)
    expect(late.transmitq.takeUsed()).toHaveLength(0)
    await until(() => late.port.stats().guestToHostDropped === 20, 'the time is up')
    expect(late.transmitq.takeUsed()).toHaveLength(2)

    // Then nothing more waits, as long as nobody is there.
    fill(late.transmitq, 2, 10)
    expect(late.transmitq.takeUsed()).toHaveLength(2)
    late.chardev.room = Infinity
    late.chardev.setConnected(true)
    fill(late.transmitq, 1, 10)
    expect(late.port.stats()).toMatchObject({ guestToHostDropped: 40, guestToHostBytes: 10 })

    const early = await left('drain')
    early.chardev.setConnected(false)
    early.chardev.room = Infinity
    early.chardev.setConnected(true)
    expect(Buffer.concat(early.chardev.received).length).toBe(20)
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(early.port.stats()).toMatchObject({ guestToHostDropped: 0, guestToHostBytes: 20 })
  })

  for (const [onClose, dropped] of [
    [undefined, 0],
    ['keep', 0],
    ['discard', 13],
    ['drain', 13],
  ] as const)
    it(`guest closes, ${onClose ?? 'unset'}: of what the host sent ${dropped} bytes are dropped`, async () => {
      const { raw, chardev, port, receiveq } = await open({ onClose, drainMs: 30 })
      chardev.send('for the guest')
      await settle()
      expect(chardev.waiting).toBe(13)
      raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
      await new Promise((resolve) => setTimeout(resolve, 50))
      expect(port.stats().hostToGuestDropped).toBe(dropped)
      raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
      receiveq.postPage(0)
      receiveq.notify()
      await settle()
      expect(receiveq.takeUsed()).toEqual(dropped ? [] : [{ id: 0, len: 13 }])
    })

  it('drain: what one end does is no reason to wait longer for the other', async () => {
    const output = await left('drain')
    output.chardev.setConnected(false)
    output.raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
    output.raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
    await until(() => output.port.stats().guestToHostDropped === 20, 'the guest that came back does not extend it')
    const input = await left('drain')
    input.raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
    input.chardev.setConnected(false)
    input.chardev.setConnected(true)
    await until(() => input.port.stats().hostToGuestDropped === 13, 'the host that came back does not extend it')
  })

  it('policy block waits for a host that was never there', async () => {
    const { chardev, transmitq, port } = await open({}, {}, false)
    fill(transmitq, 2, 10)
    expect(transmitq.takeUsed()).toEqual([])
    chardev.setConnected(true)
    expect(port.stats()).toMatchObject({ guestToHostDropped: 0, guestToHostBytes: 20 })
  })

  it('thousands of opens and closes leave nothing behind', async () => {
    const { raw, port, chardev } = await open({}, { tireless: true })
    for (let i = 0; i < 3000; i++) {
      raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 0)
      raw.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1)
      if (i % 100 === 0) await settle(1)
    }
    await settle()
    expect(port.stats()).toMatchObject({ guestOpens: 3001, guestCloses: 3000 })
    raw.send(5, Buffer.from('after'))
    expect(chardev.text).toBe('after')
  })
})

describe('removal', () => {
  it('what the guest wrote before is sent or counted, each buffer comes back, the chardev is closed', async () => {
    const { raw, chardev, transmitq, port } = await open()
    chardev.room = 25
    fill(transmitq, 4, 10)
    raw.device.removePort(1)
    expect(port.stats()).toMatchObject({ guestToHostBytes: 25, guestToHostDropped: 15 })
    expect(transmitq.takeUsed()).toHaveLength(4)
    expect(chardev.closed).toBe(true)
    expect(raw.messages()).toEqual(['DEVICE_REMOVE 1 1'])
  })

  it('a console is given back what it still writes until the next port of its number is ready (Linux waits)', async () => {
    const { raw, transmitq, port } = await open({ console: true })
    raw.device.removePort(1)
    fill(transmitq, 2, 10)
    expect(transmitq.takeUsed()).toHaveLength(2)
    expect(port.stats()).toMatchObject({ guestToHostBytes: 0, guestToHostDropped: 20 })
    // The next port of the number begins to count anew, and has what its forerunner writes in the meantime as well.
    const { chardev, port: next } = await raw.host({ name: 'again' })
    fill(transmitq, 1, 10)
    expect(transmitq.takeUsed()).toHaveLength(1)
    expect(chardev.text).toBe('')
    expect(next.stats()).toMatchObject({ guestToHostBytes: 0, guestToHostDropped: 10 })
    raw.open(1)
    fill(transmitq, 1, 10)
    expect(chardev.text).toHaveLength(10)
    raw.device.removePort(1)
    raw.reset()
    expect(raw.device.faults).toBe(0)
  })

  it('after REMOVE no ring is touched until the port is ready again, and avail.idx may go backwards (Linux)', async () => {
    const { raw, receiveq, transmitq } = await open()
    for (let i = 0; i < 8; i++) receiveq.postPage(i)
    receiveq.notify()
    raw.device.removePort(1)
    const snapshot = () => [Buffer.from(receiveq.region.bytes.slice()), Buffer.from(transmitq.region.bytes.slice())]
    // The guest has not heard of it yet: it writes, and its rings still hold what they held.
    fill(transmitq, 3, 10)
    const before = snapshot()
    // A port of the same number with a talkative host comes at once.
    const { chardev, port } = await raw.host({ name: 'again' })
    chardev.send('too early')
    chardev.setConnected(false)
    chardev.setConnected(true)
    receiveq.notify()
    transmitq.notify()
    await settle()
    expect(snapshot()).toEqual(before)
    expect(raw.messages()).toEqual(['DEVICE_REMOVE 1 1', 'DEVICE_ADD 1 1'])
    // Linux now takes its buffers out of the live rings: the index goes back to what the device has consumed.
    receiveq.setAvailIdx(receiveq.usedIdx)
    transmitq.setAvailIdx(transmitq.usedIdx)
    receiveq.page(0).fill(0)
    for (let i = 0; i < 8; i++) receiveq.postPage(i, 16)
    raw.open(1)
    receiveq.notify()
    await settle()
    expect(raw.needsReset).toBe(false)
    expect(receiveq.takeUsed()).toEqual([{ id: 0, len: 9 }])
    expect(Buffer.from(receiveq.page(0).subarray(0, 9)).toString()).toBe('too early')
    transmitq.takeUsed()
    fill(transmitq, 2, 10)
    expect(transmitq.takeUsed()).toHaveLength(2)
    expect(port.stats()).toMatchObject({ guestToHostBytes: 20, guestToHostDropped: 0 })
  })
})
