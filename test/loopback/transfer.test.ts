/** Bytes through both halves: every length, both ways, every kind of interrupt, with and without the ring's features. */

import { createHash, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { DRIVER_FEATURES } from '../../src/driver/console-options.ts'
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../../src/spec/features.ts'
import { Pair, settle, until, type PairOptions } from '../support/pair.ts'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const MIB = 1 << 20

/** A pair with port 1 open on both sides. */
async function open(options: PairOptions = {}) {
  const pair = new Pair({ ...options, device: { maxPorts: 4, ...options.device } })
  const { port, chardev: host } = await pair.host({ name: 'org.test.0' })
  pair.driver.start()
  await settle()
  const { chardev: guest, port: guestPort } = pair.guest(1)
  await settle()
  return { pair, port, host, guest, guestPort }
}

describe('transfer', () => {
  for (const [name, options] of Object.entries({
    'a vector for each queue': {},
    'one vector shared by all queues': { attach: { vectors: 2 } },
    'one vector for everything': { attach: { vectors: 1 } },
    INTx: { attach: { vectors: 0 } },
    'no EVENT_IDX': { driver: { features: DRIVER_FEATURES & ~VIRTIO_RING_F_EVENT_IDX } },
    'no INDIRECT_DESC': { driver: { features: DRIVER_FEATURES & ~VIRTIO_RING_F_INDIRECT_DESC } },
    'INTx, no EVENT_IDX': { attach: { vectors: 0 }, driver: { features: DRIVER_FEATURES & ~VIRTIO_RING_F_EVENT_IDX } },
    'the smallest queues': { device: { queueSize: 2, controlQueueSize: 2 } },
    'tiny buffers': { driver: { receiveLen: 7, receiveBuffers: 3, transmitLen: 5, transmitBuffers: 3 } },
  } satisfies Record<string, PairOptions>)) {
    it(`1 byte to 1 MiB both ways at once: ${name}`, async () => {
      const { pair, host, guest } = await open(options)
      const lens = name === 'tiny buffers' ? [1, 4, 5, 6, 40, 1001] : [1, 2, 3, 511, 4096, 4097, 32768, 65537, MIB]
      const toHost = Buffer.concat(lens.map((len) => randomBytes(len)))
      const toGuest = Buffer.concat(lens.map((len) => randomBytes(len)))
      let at = 0
      for (const len of lens) {
        guest.send(toHost.subarray(at, at + len))
        host.send(toGuest.subarray(at, at + len))
        at += len
        if (len % 2 === 0) await settle(1)
      }
      const sum = (chunks: Uint8Array[]): number => chunks.reduce((n, c) => n + c.length, 0)
      await until(() => sum(host.received) === at && sum(guest.received) === at, 'all bytes arrive')
      expect(sha256(Buffer.concat(host.received))).toBe(sha256(toHost))
      expect(sha256(Buffer.concat(guest.received))).toBe(sha256(toGuest))
      expect(pair.log).toEqual([])
      expect(pair.device.faults + pair.driver.faults + pair.machine.spurious).toBe(0)
      const [port] = pair.device.ports
      expect(port!.stats()).toMatchObject({
        guestToHostBytes: at,
        hostToGuestBytes: at,
        guestToHostDropped: 0,
        hostToGuestDropped: 0,
      })
    })
  }

  it('writes of 1 byte each keep their order, and share interrupts', async () => {
    const { pair, host, guest, port } = await open()
    for (let i = 0; i < 1000; i++) guest.send(Uint8Array.of(i & 0xff))
    await until(() => Buffer.concat(host.received).length === 1000, 'all of them')
    expect(Buffer.concat(host.received)).toEqual(Buffer.from(Array.from({ length: 1000 }, (_, i) => i & 0xff)))
    expect(port.stats().transmitBuffers).toBeGreaterThan(0)
    expect(pair.driver.port(1)!.counters.sentBytes).toBe(1000)
  })

  it('holds the guest up while the host does not read, and loses nothing (policy block)', async () => {
    const { host, guest, guestPort, port } = await open({ driver: { transmitBuffers: 4, transmitLen: 1024 } })
    host.room = 100
    const data = randomBytes(64 << 10)
    guest.send(data)
    await settle()
    expect(Buffer.concat(host.received).length).toBe(100)
    expect(port.stats().transmitStalls).toBeGreaterThan(0)
    // What the rings cannot hold waits where it came from: nothing in between grows.
    expect(guest.waiting).toBe(data.length - 4 * 1024)
    expect(guestPort.counters.transmitStalls).toBeGreaterThan(0)
    for (let i = 0; i < 1000 && Buffer.concat(host.received).length < data.length; i++) {
      host.setRoom(777)
      await settle(1)
    }
    expect(sha256(Buffer.concat(host.received))).toBe(sha256(data))
  })

  it('holds the host up while the guest does not read, and loses nothing', async () => {
    const { host, guest, port } = await open({ driver: { receiveBuffers: 4, receiveLen: 1024 } })
    guest.room = 10
    const data = randomBytes(64 << 10)
    host.send(data)
    await settle()
    expect(host.waiting).toBe(data.length - 4 * 1024)
    expect(host.reading).toBe(false)
    expect(port.stats().receiveStalls).toBeGreaterThan(0)
    for (let i = 0; i < 1000 && Buffer.concat(guest.received).length < data.length; i++) {
      guest.setRoom(999)
      await settle(1)
    }
    expect(sha256(Buffer.concat(guest.received))).toBe(sha256(data))
  })

  it('512 ports less one: a device full of ports, all open, all talk', async () => {
    const pair = new Pair({ device: { maxPorts: 511 }, driver: { receiveBuffers: 1, receiveLen: 64, transmitLen: 64 } })
    const hosts: Awaited<ReturnType<Pair['host']>>[] = []
    for (let i = 0; i < 510; i++) hosts.push(await pair.host({ name: `port.${i}` }))
    pair.driver.start()
    await until(
      () => pair.driver.ports.filter((port) => port.name && port.hostOpen).length === 510,
      'all ports are there',
    )
    const guests = hosts.map(({ port }) => pair.guest(port.id))
    await settle()
    for (const [i, { chardev }] of guests.entries()) chardev.send(`to host ${i}`)
    for (const [i, { chardev }] of hosts.entries()) chardev.send(`to guest ${i}`)
    await until(() => guests.at(-1)!.chardev.text !== '' && hosts.at(-1)!.chardev.text !== '', 'the last one hears')
    await settle()
    expect(hosts.map(({ chardev }) => chardev.text)).toEqual(hosts.map((_, i) => `to host ${i}`))
    expect(guests.map(({ chardev }) => chardev.text)).toEqual(guests.map((_, i) => `to guest ${i}`))
    expect(pair.log).toEqual([])
  })
})
