/** From the device to the driver: MSI-X, the pin, the ISR register, generations, NEEDS_RESET. */

import { describe, expect, it } from 'vitest'
import { CONTROL_RECEIVEQ, receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { PCI_COMMAND, PCI_STATUS, VIRTIO_MSI_NO_VECTOR } from '../../src/spec/pci.ts'
import { settle } from '../support/pair.ts'
import { RawDriver, type RawOptions } from '../support/raw-driver.ts'

async function open(options: RawOptions = {}) {
  const raw = new RawDriver(options)
  const { port, chardev } = await raw.host()
  raw.start().ready().open(1)
  raw.messages()
  raw.interrupts.length = raw.machine.fired.length = 0
  return { raw, port, chardev }
}
const write = (raw: RawDriver): void => raw.send(transmitqOf(1), Buffer.from('x'))

describe('MSI-X', () => {
  it('each queue has its own vector, the configuration another', async () => {
    const { raw } = await open()
    write(raw)
    expect(raw.interrupts).toEqual([transmitqOf(1)])
    expect(raw.machine.fired.map((n, vector) => (n ? vector : -1)).filter((v) => v > 0)).toEqual([1 + transmitqOf(1)])
    raw.device.close()
    expect(raw.configInterrupts).toBe(0)
  })

  it('any vector for anything; what cannot be mapped reads back as NO_VECTOR and fires nothing', async () => {
    const { raw } = await open()
    const { common } = raw.transport.structures
    const set = (at: number, value: number): number => {
      raw.registers.setBar16(common.bar, common.offset + at, value)
      return raw.registers.bar16(common.bar, common.offset + at)
    }
    set(0x16, transmitqOf(1))
    expect(set(0x1a, 0)).toBe(0)
    write(raw)
    expect(raw.machine.fired[0]).toBe(1)
    expect(set(0x1a, raw.pci.vectors)).toBe(VIRTIO_MSI_NO_VECTOR)
    expect(set(0x1a, 0xfffe)).toBe(VIRTIO_MSI_NO_VECTOR)
    expect(set(0x10, 5000)).toBe(VIRTIO_MSI_NO_VECTOR)
    write(raw)
    expect(raw.machine.fired).toEqual([1])
    expect(raw.machine.level).toBe(false)
  })

  it('the ISR is not used for queues, and has the configuration bit all the same', async () => {
    const { raw } = await open()
    await raw.host({ console: true, policy: 'drop-oldest', id: 0 })
    write(raw)
    const { isr } = raw.transport.structures
    expect(raw.registers.bar8(isr.bar, isr.offset)).toBe(0)
    raw.device.resizePort(0, 80, 25)
    expect(raw.configInterrupts).toBe(1)
    expect(raw.registers.bar8(isr.bar, isr.offset)).toBe(2)
    expect(raw.registers.bar8(isr.bar, isr.offset)).toBe(0)
  })
})

describe('INTx', () => {
  it('the pin is up from the interrupt until the ISR is read, and mirrored in the status register', async () => {
    const { raw } = await open({ vectors: 0 })
    raw.machine.connectCpu(undefined)
    write(raw)
    expect(raw.machine.level).toBe(true)
    expect(raw.registers.config16(PCI_STATUS) & 8).toBe(8)
    const { isr } = raw.transport.structures
    expect(raw.registers.bar8(isr.bar, isr.offset)).toBe(1)
    expect(raw.machine.level).toBe(false)
    expect(raw.registers.config16(PCI_STATUS) & 8).toBe(0)
  })

  it('INTX_DISABLE keeps the pin down and forgets nothing', async () => {
    const { raw } = await open({ vectors: 0 })
    raw.machine.connectCpu(undefined)
    const command = raw.registers.config16(PCI_COMMAND)
    raw.registers.setConfig16(PCI_COMMAND, command | 0x400)
    write(raw)
    expect(raw.machine.level).toBe(false)
    expect(raw.registers.config16(PCI_STATUS) & 8).toBe(8)
    raw.registers.setConfig16(PCI_COMMAND, command)
    expect(raw.machine.level).toBe(true)
  })

  it('reset lets the pin go', async () => {
    const { raw } = await open({ vectors: 0 })
    raw.machine.connectCpu(undefined)
    write(raw)
    expect(raw.machine.level).toBe(true)
    raw.reset()
    expect(raw.machine.level).toBe(false)
  })

  it('no interrupt without work, though everything shares the pin (100 000 of them would disable the line)', async () => {
    const { raw, chardev } = await open({ vectors: 0 })
    for (let i = 0; i < 64; i++) raw.queue(receiveqOf(1)).postPage(i)
    raw.queue(receiveqOf(1)).notify()
    for (let i = 0; i < 500; i++) {
      write(raw)
      if (i % 10 === 0) chardev.send('y')
      await settle(1)
    }
    expect(raw.machine.spurious).toBe(0)
  })
})

describe('configuration changes', () => {
  it('the generation moves with each change, over its wrap, and the driver is told', async () => {
    const { raw } = await open()
    await raw.host({ console: true, policy: 'drop-oldest', id: 0 })
    const { common } = raw.transport.structures
    const generation = (): number => raw.registers.bar8(common.bar, common.offset + 0x15)
    const seen = new Set<number>()
    for (let i = 1; i <= 300; i++) {
      const before = generation()
      raw.device.resizePort(0, i, 25)
      expect(generation()).not.toBe(before)
      seen.add(generation())
    }
    expect(seen.size).toBe(256)
    expect(raw.configInterrupts).toBe(300)
    const before = generation()
    raw.device.resizePort(0, 300, 25)
    expect(generation()).toBe(before)
  })

  it('a change before DRIVER_OK is seen by who reads, without an interrupt', async () => {
    const raw = new RawDriver()
    await raw.host({ console: true, policy: 'drop-oldest' })
    raw.negotiate(1n << 32n)
    raw.device.resizePort(0, 132, 43)
    const out = new Uint8Array(4)
    raw.transport.readConfig(0, out)
    expect([...out]).toEqual([132, 0, 43, 0])
    expect(raw.configInterrupts).toBe(0)
  })
})

describe('DEVICE_NEEDS_RESET', () => {
  it('a broken ring stops alone, says so with an interrupt, and a reset mends it', async () => {
    const { raw, chardev } = await open()
    const { chardev: other } = await raw.host({ name: 'other' })
    raw.messages()
    raw.open(2)
    const queue = raw.queue(transmitqOf(1))
    queue.desc(0, 0xdead0000, 100, 0)
    queue.avail(0)
    queue.notify()
    expect(raw.needsReset).toBe(true)
    expect(raw.configInterrupts).toBe(1)
    expect(raw.log.filter((line) => line.startsWith('error'))).toHaveLength(1)
    // More of the same: no more interrupts, no more lines.
    for (let i = 0; i < 100; i++) {
      queue.avail(0)
      queue.notify()
    }
    expect(raw.configInterrupts).toBe(1)
    expect(raw.log).toHaveLength(1)
    // The other port and the control queues live.
    raw.send(transmitqOf(2), Buffer.from('alive'))
    expect(other.text).toBe('alive')
    other.setConnected(false)
    expect(raw.messages()).toContain('PORT_OPEN 2 0')
    raw.start().ready().open(1)
    expect(raw.needsReset).toBe(false)
    raw.send(transmitqOf(1), Buffer.from('mended'))
    expect(chardev.text).toBe('mended')
    expect(raw.messages()).toContain('DEVICE_ADD 1 1')
  })

  it('a broken control queue breaks no data queue', async () => {
    const { raw, chardev } = await open()
    for (const index of [CONTROL_RECEIVEQ, 3]) {
      raw.queue(index).setAvailIdx(raw.queue(index).availIdx + 1000)
      raw.queue(index).notify()
    }
    await raw.host({ name: 'nobody hears of it' })
    expect(raw.needsReset).toBe(true)
    raw.send(transmitqOf(1), Buffer.from('alive'))
    expect(chardev.text).toBe('alive')
  })
})

describe('the memory map changes while the device runs', () => {
  it('rings that go are left alone, and served when they come back; data that goes breaks its queue', async () => {
    const { raw, chardev } = await open({ tireless: true })
    const queue = raw.queue(transmitqOf(1))
    queue.page(0).set(Buffer.from('later'))
    queue.desc(0, queue.pageAddress(0), 5, 0)
    raw.memory.remove(queue.region.base, queue.region.size)
    queue.avail(0)
    queue.notify()
    expect(chardev.text).toBe('')
    expect(raw.needsReset).toBe(false)
    raw.memory.add(queue.region)
    expect(chardev.text).toBe('later')
    // Everything goes at once, as QEMU does it when a machine is reset, and comes back in another order.
    const regions = [...raw.memory.regions]
    raw.memory.clear()
    queue.avail(0)
    queue.notify()
    chardev.send('z')
    for (const region of regions.toReversed()) raw.memory.add(region)
    expect(chardev.text).toBe('laterlater')
    expect(raw.needsReset).toBe(false)
    raw.memory.remove(queue.pageAddress(0), queue.size * 4096)
    queue.avail(0)
    queue.notify()
    expect(raw.needsReset).toBe(true)
    expect(chardev.text).toBe('laterlater')
  })

  it('a region that is replaced under a queue: the new bytes count', async () => {
    const { raw, chardev } = await open()
    const queue = raw.queue(transmitqOf(1))
    write(raw)
    const copy = { ...queue.region, bytes: queue.region.bytes.slice() }
    raw.memory.remove(queue.region.base, queue.region.size)
    raw.memory.add(copy)
    // The driver's stores into the old memory are seen by nobody.
    write(raw)
    expect(chardev.text).toBe('x')
    const view = new DataView(copy.bytes.buffer)
    view.setUint16(0x8002, queue.availIdx, true)
    view.setUint16(0x8004 + 2, 0, true)
    queue.notify()
    expect(chardev.text).toBe('xx')
  })
})
