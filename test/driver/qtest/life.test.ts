/** Our driver half on real devices, without a guest: ports that come and go, who is there, resets, consoles. */

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readBytes, until } from '../../machine/rig.ts'
import type { MemoryChardev } from '../../support/memory-chardev.ts'
import { DEVICES, QtestRig } from './rig.ts'

const MIB = 1 << 20

describe.each(DEVICES)('life: %s', (device) => {
  let rig: QtestRig
  beforeAll(async () => void (rig = await QtestRig.start(device, { ports: ['org.a', 'org.b'] })))
  afterAll(() => rig?.close())

  /** One byte string each way, on a port that is open on neither side yet. */
  async function talk(name: string): Promise<void> {
    const guest = await rig.open(name)
    const host = await rig.connect(name)
    guest.send(`${name} to host`)
    expect((await readBytes(host, name.length + 8)).toString()).toBe(`${name} to host`)
    host.write(`${name} to guest`)
    await until(() => guest.text === `${name} to guest`, `${name}: the guest hears`)
    host.destroy()
    const port = await rig.port(name)
    // A console is always open.
    if (!port.console) await until(() => !port.hostOpen, 'the peer is gone')
  }

  it('finds the function by its ids, and the ports by their names', async () => {
    const ids = [0x1003_1af4, 0x1043_1af4]
    expect(rig.machine.qtest.bus.find(ids)).toEqual([{ slot: 4 }])
    expect(rig.driver.maxPorts).toBe(8)
    expect(rig.driver.ports.map(({ name, console }) => [name, console])).toEqual([
      ['org.a', false],
      ['org.b', false],
    ])
    expect(() => rig.machine.qtest.attach({ slot: 7 })).toThrow('there is no PCI function at slot 7')
    expect(() => rig.machine.qtest.attach({ slot: 0 })).toThrow('not a virtio device')
  })

  it('each side sees the other come and go', async () => {
    const port = await rig.port('org.a')
    expect(port.hostOpen).toBe(false)
    const host = await rig.connect('org.a')
    expect(rig.events).toContain(`host-open ${port.id}`)
    const guest = await rig.open('org.a')
    await rig.guestOpen('org.a', true)
    guest.setConnected(false)
    await rig.guestOpen('org.a', false)
    guest.setConnected(true)
    await rig.guestOpen('org.a', true)
    host.destroy()
    await until(() => !port.hostOpen, 'the driver hears that the peer went')
    expect(rig.events).toContain(`host-close ${port.id}`)
    const again = await rig.connect('org.a')
    guest.send('still here')
    expect((await readBytes(again, 10)).toString()).toBe('still here')
    again.destroy()
    await until(() => !port.hostOpen, 'the driver hears that the peer went again')
  })

  it('a port is added while the device runs, removed, and its number given to another', async () => {
    await rig.addPort('org.hot', { id: 5 })
    const port = await rig.port('org.hot')
    expect(port.id).toBe(5)
    await talk('org.hot')
    await rig.removePort('org.hot')
    await until(() => port.gone, 'the driver hears that the port went')
    expect(rig.events).toContain('removed 5')
    expect((port.chardev ?? { closed: true }) as MemoryChardev).toMatchObject({ closed: true })
    await rig.addPort('org.next', { id: 5 })
    expect((await rig.port('org.next')).id).toBe(5)
    await talk('org.next')
    await rig.removePort('org.next')
    await until(() => rig.driver.port(5) === undefined, 'the driver hears that the next one went')
    expect(rig.driver.ports.map(({ name }) => name)).toEqual(['org.a', 'org.b'])
  })

  it('a port with data in flight is removed: the other ports do not notice', async () => {
    await rig.addPort('org.full', { id: 6 })
    const guest = await rig.open('org.full')
    const host = await rig.connect('org.full') // does not read
    guest.send(randomBytes(4 * MIB))
    host.write(randomBytes(MIB))
    await sleep(50)
    await rig.removePort('org.full')
    await until(() => guest.closed, 'the program sees it go')
    host.destroy()
    rig.again()
    await talk('org.b')
  })

  it('the host that does not read holds the program up, and loses nothing', async () => {
    rig.again({ driver: { transmitBuffers: 4, transmitLen: 4096 } })
    const guest = await rig.open('org.b')
    const host = await rig.connect('org.b')
    const data = randomBytes(4 * MIB)
    guest.send(data)
    await until(() => (rig.driver.ports[1]?.counters.transmitStalls ?? 0) > 0, 'the ring is full')
    await sleep(100)
    expect(guest.waiting).toBeGreaterThan(2 * MIB)
    const got = await readBytes(host, data.length)
    expect(got.equals(data)).toBe(true)
    host.destroy()
  })

  it('the program that does not read holds the host up, and loses nothing', async () => {
    rig.again({ driver: { receiveBuffers: 4, receiveLen: 4096 } })
    const guest = await rig.open('org.b')
    const host = await rig.connect('org.b')
    guest.room = 10
    const data = randomBytes(4 * MIB)
    const written = new Promise<void>((resolve) => host.write(data, () => resolve()))
    await sleep(200)
    expect(guest.received.reduce((sum, { length }) => sum + length, 0)).toBe(10)
    expect(host.writableLength).toBeGreaterThan(2 * MIB)
    guest.setRoom(Infinity)
    await written
    await until(() => guest.received.reduce((sum, { length }) => sum + length, 0) === data.length, 'all of it')
    expect(Buffer.concat(guest.received).equals(data)).toBe(true)
    host.destroy()
  })

  it('one kick a batch: 1 MiB to the host costs few register writes', async () => {
    rig.again()
    const guest = await rig.open('org.a')
    const host = await rig.connect('org.a')
    await rig.guestOpen('org.a', true)
    const { client } = rig.machine.qtest
    const before = client.commands
    const all = readBytes(host, MIB)
    guest.send(randomBytes(MIB))
    await all
    // 512 KiB of buffers: a batch of 2 chains of 8 buffers, and one more for what came back; 32 writes of 32 KiB.
    expect(client.commands - before).toBeLessThanOrEqual(24)
    host.destroy()
  })

  it('the driver restarts, and another one follows it', async () => {
    rig.driver.restart()
    await talk('org.a')
    rig.again()
    await talk('org.a')
    for (let i = 0; i < 5; i++) rig.again({ vectors: i % 3 })
    await talk('org.b')
    expect(rig.driver.faults).toBe(0)
  })

  it('a driver that was killed in the middle leaves a device that the next one can take', async () => {
    const guest = await rig.open('org.a')
    const host = await rig.connect('org.a')
    guest.send(randomBytes(4 * MIB))
    // No stop: the device runs on the old rings until the reset, which comes with the next start.
    rig.attached.detach()
    rig.attach()
    rig.driver.start()
    host.destroy()
    await talk('org.a')
  })

  it('after a reset of the machine everything is set up anew', async () => {
    rig.attached.detach()
    const reset = rig.machine.client.nextEvent('RESET')
    await rig.machine.qmp('system_reset')
    await reset
    await rig.machine.qtest.ready()
    rig.attach()
    rig.driver.start()
    await talk('org.a')
    expect(rig.driver.ports.map(({ name }) => name)).toEqual(['org.a', 'org.b'])
  })

  it('a console: at once open, with a size where the device tells one', async () => {
    await rig.addPort('con', { console: true, id: 0 })
    const port = await rig.port('con')
    expect([port.id, port.console]).toEqual([0, true])
    await talk('con')
    if (device === 'ours') {
      await rig.resize('con', 132, 43)
      await until(() => port.size?.cols === 132, 'the size arrives')
      expect(port.size).toEqual({ cols: 132, rows: 43 })
    } else console.log(`${device}: nothing gives its console a size over QMP, so none is awaited`)
  })

  it('nothing was complained about', () => {
    expect(rig.log).toEqual([])
    expect(rig.machine.stderr).toBe('')
    // QEMU says that a console is open before it says that there is one.
    expect(rig.driver.ignoredControl).toBe(device === 'ours' ? 0 : 1)
  })
})

it('a QEMU that is killed under the driver: told once, nothing throws, nothing hangs', async () => {
  const rig = await QtestRig.start('qemu', { ports: ['org.a'] })
  try {
    const guest = await rig.open('org.a')
    const gone = new Promise<Error>((resolve) => (rig.machine.qtest.client.onClose = resolve))
    process.kill(rig.machine.pid, 'SIGKILL')
    expect((await gone).message).toBe('qtest: QEMU is gone')
    guest.send('to nobody')
    expect(rig.attached.transport.readStatus()).toBe(0xff)
    expect(() => rig.driver.stop()).toThrow('the device does not finish its reset')
    expect(() => rig.machine.qtest.attach({ slot: 4 })).toThrow('there is no PCI function at slot 4')
  } finally {
    await rig.close()
  }
})
