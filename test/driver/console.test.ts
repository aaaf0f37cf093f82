/** The driver in front of devices that lie, stall, repeat themselves, or follow the rules in unusual ways. */

import { describe, expect, it } from 'vitest'
import { PeerFault, VmchannelError } from '../../src/errors.ts'
import { MemoryChardev } from '../support/memory-chardev.ts'
import { settle } from '../support/pair.ts'
import { fakePair, type FakePair } from '../support/fake-console.ts'

const ADD = 1
const REMOVE = 2
const CONSOLE = 4
const RESIZE = 5
const OPEN = 6
const NAME = 7

function started(...args: Parameters<typeof fakePair>): FakePair {
  const pair = fakePair(...args)
  pair.driver.start()
  return pair
}

describe('starting', () => {
  it('in the order of §3.1.1: nothing is notified before DRIVER_OK, then DEVICE_READY', () => {
    const { fake, driver } = started()
    expect(fake.early).toEqual([])
    expect(fake.heard).toEqual(['DEVICE_READY 4294967295 1'])
    expect(driver.running).toBe(true)
    expect(driver.maxPorts).toBe(4)
    expect(fake.available(2)).toBe(32)
  })

  for (const [name, prepare, error] of [
    ['no VERSION_1', (f) => (f.features = 3n), PeerFault],
    ['features refused', (f) => (f.acceptable = false), VmchannelError],
    ['max_nr_ports 0', (f) => (f.maxPorts = 0), PeerFault],
    ['queues of size 0', (f) => (f.size = 0), PeerFault],
    ['queues of size 3', (f) => (f.size = 3), PeerFault],
    ['control queues missing', (f) => (f.queueCount = 2), PeerFault],
  ] as [string, (fake: FakePair['fake']) => unknown, new (...words: never[]) => Error][])
    it(`${name}: the device is marked FAILED and nothing stays behind`, () => {
      const { driver, pci } = fakePair(prepare)
      expect(() => driver.start()).toThrow(error)
      const status = new Uint8Array(1)
      pci.readBar(4, 0x14, status)
      expect(status[0]! & 0x80).toBe(0x80)
      expect(driver.running).toBe(false)
      expect(driver.maxPorts).toBe(0)
    })

  for (const said of [5, 0x8000, 0xffffffff])
    it(`max_nr_ports ${said} with queues for 4: four are used`, () => {
      const { driver, log } = started((fake) => (fake.maxPorts = said))
      expect(driver.maxPorts).toBe(4)
      expect(log).toHaveLength(1)
    })

  it('queues that are larger than needed are made smaller, the smallest work', () => {
    started((fake) => (fake.size = 32768))
    const { fake, driver } = started((f) => (f.size = 1))
    expect(fake.heard).toEqual(['DEVICE_READY 4294967295 1'])
    fake.say(1, ADD, 1)
    expect(driver.port(1)).toBeDefined()
    expect(fake.heard.at(-1)).toBe('PORT_READY 1 1')
  })
})

describe('control messages of a lying device', () => {
  it('are counted and ignored: ids out of range, unknown events, ports that were not added, short ones', () => {
    const { fake, driver, events } = started()
    const before = driver.ignoredControl
    let count = 0
    const say = (...args: Parameters<typeof fake.say>): void => {
      fake.say(...args)
      count++
    }
    for (const id of [4, 5, 0x7fffffff, 0xffffffff])
      for (const event of [ADD, REMOVE, CONSOLE, OPEN, NAME, 99]) say(id, event, 1)
    for (const event of [REMOVE, CONSOLE, RESIZE, OPEN, NAME, 0, 3, 8, 0xffff]) say(2, event, 1)
    for (let len = 0; len < 8; len++) {
      fake.send(2, new Uint8Array(len).fill(1))
      count++
    }
    expect(driver.ignoredControl - before).toBe(count)
    expect(events).toEqual([])
    fake.say(2, ADD, 1)
    expect(driver.port(2)).toBeDefined()
  })

  it('ADD of a known port answers again and makes nothing new; 10^4 of them grow nothing', async () => {
    const { fake, driver } = started()
    for (let i = 0; i < 10_000; i++) {
      // In pieces: the driver looks at no more in one turn.
      if (i % 32 === 0) await settle(1)
      fake.say(1, ADD, 1)
    }
    await settle()
    expect(driver.ports).toHaveLength(1)
    expect(fake.heard.filter((text) => text === 'PORT_READY 1 1').length).toBe(10_000)
  })

  it('a storm of ADD and REMOVE while the device takes no answer: state, not a queue', async () => {
    const { fake, driver } = started()
    fake.notify = () => {}
    const before = fake.available(3)
    for (let i = 0; i < 5000; i++) {
      if (i % 16 === 0) await settle(1)
      fake.say(i % 4, ADD, 1)
      if (i % 3 === 0) fake.say(i % 4, REMOVE, 1)
    }
    expect(fake.available(3) - before).toBeLessThanOrEqual(16)
    expect(driver.ports.length).toBeLessThanOrEqual(4)
    fake.listen()
    expect(driver.running).toBe(true)
  })

  for (const [name, bytes] of [
    ['../etc', Buffer.from('../etc')],
    ['a newline', Buffer.from('a\nb')],
    ['an escape', Buffer.from('a\x1b[2J')],
    ['nothing', Buffer.alloc(0)],
    ['only a NUL', Buffer.alloc(1)],
    ['two dots', Buffer.from('..')],
    ['invalid UTF-8', Buffer.from([0x66, 0xff, 0xfe])],
    ['200 bytes', Buffer.alloc(200, 0x61)],
  ] as const)
    it(`a name that cannot be a file's is not taken: ${name}`, () => {
      const { fake, driver, events, log } = started()
      fake.say(1, ADD, 1)
      fake.say(1, NAME, 1, bytes)
      expect(driver.port(1)!.name).toBeUndefined()
      expect(events).toEqual(['added 1'])
      // oxlint-disable-next-line no-control-regex
      expect(log.join('')).not.toMatch(/[\n\x1b]/)
      fake.say(1, NAME, 1, Buffer.from('good'))
      expect(driver.port(1)!.name).toBe('good')
    })

  it('a NUL ends the name, a second name is ignored', () => {
    const { fake, driver } = started()
    fake.say(1, ADD, 1)
    fake.say(1, NAME, 1, Buffer.from('ü.0\0rest'))
    fake.say(1, NAME, 1, Buffer.from('other'))
    expect(driver.port(1)!.name).toBe('ü.0')
  })

  it('RESIZE of 8 to 11 bytes, and of what is no console, is ignored', () => {
    const { fake, driver } = started()
    fake.say(1, ADD, 1)
    fake.say(1, RESIZE, 0, Buffer.from([80, 0, 25, 0]))
    expect(driver.port(1)!.size).toBeUndefined()
    fake.say(1, CONSOLE, 1)
    for (let len = 0; len < 4; len++) fake.say(1, RESIZE, 0, Buffer.alloc(len, 1))
    expect(driver.port(1)!.size).toBeUndefined()
    fake.say(1, RESIZE, 0, Buffer.from([80, 0, 25, 0]))
    expect(driver.port(1)!.size).toEqual({ cols: 80, rows: 25 })
  })

  it('CONSOLE_PORT is answered with PORT_OPEN 1, once; with value 0 it is ignored', () => {
    const { fake, driver } = started()
    fake.say(1, ADD, 1)
    fake.say(1, CONSOLE, 0)
    expect(driver.port(1)!.console).toBe(false)
    fake.say(1, CONSOLE, 1)
    fake.say(1, CONSOLE, 1)
    expect(driver.port(1)!.console).toBe(true)
    expect(fake.heard.slice(1)).toEqual(['PORT_READY 1 1', 'PORT_OPEN 1 1'])
    // It stays open whatever programs do.
    const chardev = driver.port(1)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
    chardev.setConnected(false)
    expect(fake.heard.slice(3)).toEqual([])
  })

  it('control messages that are acknowledged twice, as one emulator does it', async () => {
    for (const size of [2, 8, 64]) {
      const { fake, driver } = started((f) => {
        f.acknowledge = 2
        f.size = size
      })
      for (let i = 0; i < 500; i++) {
        if (fake.available(2) === 0) await settle(1)
        fake.say(1, ADD, 1)
      }
      // Many at once: it was asleep.
      fake.notify = () => {}
      for (let id = 0; id < 4; id++) {
        if (fake.available(2) === 0) await settle(1)
        fake.say(id, ADD, 1)
      }
      fake.listen()
      expect(driver.running).toBe(true)
      expect(fake.heard.filter((text) => text.startsWith('PORT_READY')).length).toBeGreaterThan(250)
      expect(driver.faults).toBe(0)
    }
  })

  it('a control queue that breaks the rules ends everything, and the device is told FAILED', () => {
    for (const spoil of [
      ({ fake }: FakePair) => fake.use(2, 60, 8),
      ({ fake }: FakePair) => fake.use(2, 0xffffffff, 8),
      ({ fake }: FakePair) => fake.send(2, new Uint8Array(8), 100_000),
      ({ fake }: FakePair) => fake.use(3, 9999, 0),
      ({ fake }: FakePair) => {
        fake.rings[2]!.publishUsedIdx(500)
        fake.host.interruptQueue(2)
      },
    ]) {
      let failed: Error | undefined
      const pair = started(undefined, { onFailed: (error) => (failed = error) })
      pair.fake.say(1, ADD, 1)
      const chardev = pair.driver.port(1)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
      spoil(pair)
      expect(failed).toBeInstanceOf(PeerFault)
      expect(pair.driver.running).toBe(false)
      expect(chardev.closed).toBe(true)
      expect(pair.events.at(-1)).toBe('stopped 1')
      const status = new Uint8Array(1)
      pair.pci.readBar(4, 0x14, status)
      expect(status[0]! & 0x80).toBe(0x80)
      // A late interrupt meets nobody.
      pair.fake.host.interruptQueue(2)
      pair.fake.host.configChanged()
      // And it can start again, with rings and buffers of its own.
      pair.driver.start()
      pair.fake.say(1, ADD, 1)
      pair.driver.port(1)!.attach((end) => new MemoryChardev(end))
      expect(pair.fake.available(4)).toBe(32)
    }
  })
})

describe('data queues of a lying device', () => {
  function open(options = {}) {
    const pair = started(undefined, options)
    for (const id of [1, 2]) {
      pair.fake.say(id, ADD, 1)
      pair.fake.say(id, OPEN, 1)
    }
    const chardev = pair.driver.port(1)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
    const other = pair.driver.port(2)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
    return { ...pair, chardev, other }
  }

  it('one that breaks the rules ends its port; the others live, and the device hears of it', () => {
    for (const spoil of [
      ({ fake }: FakePair) => fake.use(4, 63, 8),
      ({ fake }: FakePair) => fake.send(4, new Uint8Array(8), 1 << 30),
      ({ fake }: FakePair) => fake.use(5, 3, 0),
      ({ fake }: FakePair) => {
        fake.rings[4]!.publishUsedIdx(40_000)
        fake.host.interruptQueue(4)
      },
    ]) {
      const pair = open()
      spoil(pair)
      // What comes back on a transmitq is looked at when a buffer is needed.
      pair.chardev.send('x')
      expect(pair.events).toContain('broken 1')
      expect(pair.chardev.closed).toBe(true)
      expect(pair.driver.faults).toBe(1)
      pair.fake.send(6, Buffer.from('alive'))
      expect(pair.other.text).toBe('alive')
      expect(pair.fake.heard.at(-1)).toBe('PORT_OPEN 1 0')
      // It can be removed, but not made again before the device is reset.
      pair.fake.say(1, REMOVE, 1)
      pair.fake.say(1, ADD, 1)
      expect(pair.driver.port(1)).toBeUndefined()
    }
  })

  it('buffers used with length 0 go back to the device and are nothing to the reader', () => {
    const { fake, chardev } = open()
    for (let i = 0; i < 100; i++) fake.send(4, new Uint8Array(0))
    fake.send(4, Buffer.from('x'))
    expect(chardev.text).toBe('x')
    expect(fake.available(4)).toBe(32)
  })

  it('transmit buffers used out of order, with lengths that make no sense', async () => {
    const { fake, chardev, driver } = open({ transmitLen: 4, transmitBuffers: 8 })
    const written: string[] = []
    const drain = (): void => {
      const heads: number[] = []
      while (fake.available(5) > 0) {
        const head = fake.take(5)
        let at: number | undefined = head
        let text = ''
        while (at !== undefined) {
          text += Buffer.from(fake.bytes(5, at)).toString()
          const word: number = fake.rings[5]!.desc[4 * at + 3]!
          at = word & 1 ? word >>> 16 : undefined
        }
        written.push(text)
        heads.push(head)
      }
      for (const head of heads.toReversed()) fake.use(5, head, 0x7fffffff, false)
      fake.host.interruptQueue(5)
    }
    for (let i = 0; i < 50; i++) chardev.send(`message ${i};`)
    for (let i = 0; i < 200 && chardev.waiting > 0; i++) {
      drain()
      await settle(1)
    }
    drain()
    expect(written.join('')).toBe(Array.from({ length: 50 }, (_, i) => `message ${i};`).join(''))
    expect(driver.faults).toBe(0)
  })

  it('a removed port: programs see it go, what the device still sends is dropped, its buffers serve the next', async () => {
    const { fake, chardev, driver } = open()
    const port = driver.port(1)!
    fake.say(1, REMOVE, 1)
    expect([port.gone, chardev.closed, driver.port(1)]).toEqual([true, true, undefined])
    chardev.setConnected(false)
    chardev.send('nobody')
    fake.send(4, Buffer.from('late'))
    const before = fake.available(4)
    fake.say(1, ADD, 1)
    fake.say(1, OPEN, 1)
    const next = driver.port(1)!.attach((end) => new MemoryChardev(end)) as MemoryChardev
    await settle()
    expect(fake.available(4)).toBeGreaterThanOrEqual(before)
    fake.send(4, Buffer.from('for the new one'))
    expect(next.text).toContain('for the new one')
    expect(port.guestOpen).toBe(false)
    expect(() => port.attach((end) => new MemoryChardev(end))).toThrow(VmchannelError)
  })

  it('opens and closes of the program are told as they are, though the device is slow to listen', () => {
    const { fake, chardev } = open()
    const slow = fake.notify.bind(fake)
    fake.notify = () => {}
    // Fill what is under way, then more changes than could ever be.
    for (let i = 0; i < 1000; i++) {
      chardev.setConnected(false)
      chardev.setConnected(true)
    }
    fake.notify = slow
    fake.listen()
    const told = fake.heard.filter((text) => text.startsWith('PORT_OPEN 1'))
    // One before, the sixteen that can be under way, and of all the others that it went and is there.
    expect(told.length).toBe(19)
    expect(told.at(-1)).toBe('PORT_OPEN 1 1')
    expect(told.filter((_, i) => i > 0 && told[i] === told[i - 1])).toEqual([])
  })
})

describe('usage', () => {
  it('options that cannot be are named', () => {
    for (const options of [{ receiveBuffers: 0 }, { transmitLen: 1.5 }, { receiveLen: 2 ** 30 }])
      expect(() => fakePair(undefined, options)).toThrow(new RegExp(Object.keys(options)[0]!))
  })

  it('a port has one chardev', () => {
    const { fake, driver } = started()
    fake.say(1, ADD, 1)
    driver.port(1)!.attach((end) => new MemoryChardev(end))
    expect(() => driver.port(1)!.attach((end) => new MemoryChardev(end))).toThrow(VmchannelError)
    expect(() => driver.start()).toThrow(VmchannelError)
  })
})
