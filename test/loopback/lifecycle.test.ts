/** The two halves through their lives: ports that come and go, sizes, single-port devices, broken rings, restarts. */

import { describe, expect, it } from 'vitest'
import { DRIVER_FEATURES } from '../../src/driver/console-options.ts'
import { VIRTIO_CONSOLE_F_MULTIPORT, VIRTIO_CONSOLE_F_SIZE } from '../../src/spec/features.ts'
import { Pair, settle, until, type PairOptions } from '../support/pair.ts'

async function started(options: PairOptions = {}): Promise<Pair> {
  const pair = new Pair({ ...options, device: { maxPorts: 4, ...options.device } })
  pair.driver.start()
  await settle()
  return pair
}

describe('ports', () => {
  it('come, are named, opened, closed on either side, and go', async () => {
    const pair = await started()
    const { chardev: host, port } = await pair.host({ name: 'org.test.0' }, false)
    await settle()
    expect(pair.driverEvents).toEqual(['added 1', 'named 1'])
    expect(pair.driver.port(1)!.name).toBe('org.test.0')
    host.setConnected(true)
    await settle()
    const { chardev: guest, port: guestPort } = pair.guest(1)
    await settle()
    expect(pair.driverEvents).toEqual(['added 1', 'named 1', 'host-open 1'])
    expect(port.guestOpen).toBe(true)
    guest.setConnected(false)
    await settle()
    expect(port.guestOpen).toBe(false)
    host.setConnected(false)
    await settle()
    expect(guestPort.hostOpen).toBe(false)
    pair.device.removePort(1)
    await settle()
    expect(guestPort.gone).toBe(true)
    expect(guest.closed && host.closed).toBe(true)
    expect(pair.driver.port(1)).toBeUndefined()
    expect(pair.driverEvents).toEqual(['added 1', 'named 1', 'host-open 1', 'host-close 1', 'removed 1'])
    expect(pair.events).toEqual([
      'port-added 1',
      'port-ready 1',
      'host-connect 1',
      'guest-open 1',
      'guest-close 1',
      'host-disconnect 1',
      'port-removed 1',
    ])
    expect(pair.log).toEqual([])
  })

  it('removed in the middle of traffic and added again, a hundred times: the new one is clean', async () => {
    const pair = await started({ driver: { receiveBuffers: 8, transmitBuffers: 4 } })
    for (let round = 0; round < 100; round++) {
      const { chardev: host } = await pair.host({ name: `round.${round}` })
      await settle(2)
      const { chardev: guest } = pair.guest(1)
      await settle(2)
      if (round % 3 === 0) host.room = 10
      if (round % 4 === 0) guest.room = 10
      guest.send(`guest ${round} `.repeat(500))
      host.send(`host ${round} `.repeat(500))
      await settle(round % 3)
      pair.device.removePort(1)
      await settle(2)
      for (const [text, who] of [
        [host.text, 'guest'],
        [guest.text, 'host'],
      ] as const)
        expect(`${who} ${round} `.repeat(500).startsWith(text)).toBe(true)
    }
    expect(pair.log).toEqual([])
    expect(pair.device.faults + pair.driver.faults).toBe(0)
    expect(pair.driver.running).toBe(true)
  })

  it('a host that goes and comes back is seen going and coming', async () => {
    const pair = await started()
    const { chardev: host } = await pair.host()
    await settle()
    host.setConnected(false)
    host.setConnected(true)
    await settle()
    expect(pair.driverEvents).toEqual(['added 1', 'host-open 1', 'host-close 1', 'host-open 1'])
  })

  it('thousands of opens and closes: both sides agree at the end, and bytes flow', async () => {
    const pair = await started()
    const { chardev: host, port } = await pair.host()
    await settle()
    const { chardev: guest } = pair.guest(1)
    for (let i = 0; i < 3000; i++) {
      guest.setConnected(false)
      guest.setConnected(true)
      if (i % 7 === 0) {
        host.setConnected(false)
        host.setConnected(true)
      }
      if (i % 11 === 0) await settle(1)
    }
    await settle()
    expect([port.guestOpen, pair.driver.port(1)!.hostOpen]).toEqual([true, true])
    guest.send('to host')
    host.send('to guest')
    await settle()
    expect([host.text, guest.text]).toEqual(['to host', 'to guest'])
  })

  it('what nobody reads is dropped in the guest and counted there, not kept', async () => {
    const pair = await started()
    const { chardev: host } = await pair.host({ console: true, policy: 'drop-oldest', name: 'tty' })
    await settle()
    expect(pair.driver.port(0)!.console).toBe(true)
    // A console is open from the start: the device sends though no program is there.
    host.send('login: ')
    await settle()
    expect(pair.driver.port(0)!.counters).toMatchObject({ receivedBytes: 0, receivedDropped: 7 })
    const { chardev: guest } = pair.guest(0)
    host.send('again')
    await settle()
    expect(guest.text).toBe('again')
  })

  it('RESIZE reaches the console it is meant for', async () => {
    for (const order of ['cols-rows', 'rows-cols'] as const) {
      const pair = await started({ device: { maxPorts: 4, resizeOrder: order }, driver: { resizeOrder: order } })
      await pair.host({ console: true, policy: 'drop-oldest', id: 2 })
      await settle()
      pair.device.resizePort(2, 132, 43)
      await settle()
      expect(pair.driver.port(2)!.size).toEqual({ cols: 132, rows: 43 })
    }
  })
})

describe('a device of one port', () => {
  it('has two queues, no control messages, a console that is open at once, and its size in the configuration', async () => {
    const pair = new Pair({ device: { maxPorts: 1 } })
    const { chardev: host, port } = await pair.host({ console: true, policy: 'drop-oldest' })
    pair.device.resizePort(0, 80, 25)
    pair.driver.start()
    await settle()
    expect(pair.device.queueCount).toBe(2)
    expect(pair.driver.multiport).toBe(false)
    expect(port.guestOpen).toBe(true)
    const { chardev: guest } = pair.guest(0)
    guest.send('hello')
    host.send('hi')
    await settle()
    expect([host.text, guest.text]).toEqual(['hello', 'hi'])
    expect(pair.driver.port(0)!.size).toEqual({ cols: 80, rows: 25 })
    pair.device.resizePort(0, 100, 30)
    await settle()
    expect(pair.driver.port(0)!.size).toEqual({ cols: 100, rows: 30 })
  })

  it('a driver that knows no MULTIPORT gets port 0 of a device that has it', async () => {
    const pair = new Pair({
      device: { maxPorts: 4 },
      driver: { features: DRIVER_FEATURES & ~VIRTIO_CONSOLE_F_MULTIPORT },
    })
    const { chardev: host } = await pair.host({ console: true, policy: 'drop-oldest' })
    const { port: other } = await pair.host({ name: 'unseen' })
    pair.driver.start()
    await settle()
    const { chardev: guest } = pair.guest(0)
    guest.send('hello')
    host.send('hi')
    await settle()
    expect([host.text, guest.text]).toEqual(['hello', 'hi'])
    expect(other.guestOpen).toBe(false)
    expect(pair.driver.ports).toHaveLength(1)
  })

  it('without F_SIZE no size', async () => {
    const pair = new Pair({ device: { maxPorts: 1 }, driver: { features: DRIVER_FEATURES & ~VIRTIO_CONSOLE_F_SIZE } })
    await pair.host({ console: true, policy: 'drop-oldest' })
    pair.device.resizePort(0, 80, 25)
    pair.driver.start()
    await settle()
    expect(pair.driver.port(0)!.size).toBeUndefined()
  })

  it('a port whose chardev opens after the driver started', async () => {
    const pair = new Pair({ device: { maxPorts: 1 } })
    pair.driver.start()
    await settle()
    const { chardev: guest } = pair.guest(0)
    const { chardev: host } = await pair.host({ console: true, policy: 'drop-oldest' })
    guest.send('late')
    await settle()
    expect(host.text).toBe('late')
  })
})

describe('restart', () => {
  it('the driver stops and starts: the same ports again, no page lost', async () => {
    const pair = await started()
    const { chardev: host } = await pair.host({ name: 'stays' })
    await settle()
    pair.guest(1)
    await settle()
    const regions = pair.memory.regions.length
    for (let round = 0; round < 20; round++) {
      pair.driver.restart()
      await settle()
      const { chardev: guest } = pair.guest(1)
      host.received.length = 0
      guest.send(`round ${round}`)
      await settle()
      expect(host.text).toBe(`round ${round}`)
    }
    expect(pair.memory.regions.length).toBe(regions)
    pair.driver.stop()
    expect(pair.device.started).toBe(false)
    expect(pair.device.port(1)!.guestOpen).toBe(false)
    pair.driver.stop()
  })

  it('NEEDS_RESET on one broken ring: other ports live, and a restart mends it', async () => {
    let needed = 0
    const pair = await started({ driver: { onNeedsReset: () => void needed++ } })
    const { chardev: host } = await pair.host()
    const { chardev: otherHost } = await pair.host()
    await settle()
    const { chardev: other } = pair.guest(2)
    await settle()
    pair.guest(1)
    await settle()
    spoilAvailIdx(pair, 4)
    host.send('x')
    await settle()
    expect(needed).toBe(1)
    expect(pair.device.faults).toBe(1)
    other.send('alive')
    await settle()
    expect(otherHost.text).toBe('alive')
    pair.driver.restart()
    await settle()
    const { chardev: again } = pair.guest(1)
    again.send('mended')
    await settle()
    expect(host.text).toBe('mended')
    // What the host had sent when the ring broke has waited for this.
    expect(again.text).toBe('x')
  })

  /** Writes nonsense into the available ring of a queue, where the registers say that it is. */
  function spoilAvailIdx(pair: Pair, queue: number): void {
    const { common } = pair.pci.layout
    pair.pci.writeBar(4, common.offset + 0x16, Uint8Array.of(queue, 0))
    const out = new Uint8Array(8)
    pair.pci.readBar(4, common.offset + 0x28, out)
    const avail = Number(new DataView(out.buffer).getBigUint64(0, true))
    const { base, bytes } = pair.memory.region(avail)!
    new DataView(bytes.buffer, bytes.byteOffset).setUint16(avail - base + 2, 0x4000, true)
  }

  it('a machine reset takes the driver by surprise, and it can start again', async () => {
    const pair = await started()
    const { chardev: host } = await pair.host()
    await settle()
    pair.guest(1)
    pair.pci.reset()
    await settle()
    expect(pair.device.started).toBe(false)
    expect(pair.device.port(1)!.guestOpen).toBe(false)
    expect(host.reading).toBe(false)
  })
})

describe('memory of the driver', () => {
  it('511 ports at rest cost less than 32 MiB', async () => {
    const pair = new Pair({ device: { maxPorts: 511 } })
    for (let i = 0; i < 510; i++) await pair.host()
    pair.driver.start()
    await until(() => pair.driver.ports.filter((port) => port.hostOpen).length === 510, 'all ports are there')
    const total = pair.memory.regions.reduce((sum, { size }) => sum + size, 0)
    expect(total).toBeLessThan(32 << 20)
    expect(pair.driver.maxPorts).toBe(511)
  })
})
