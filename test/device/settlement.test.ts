/** Transmit buffers come back at once; the interrupt for them only where the driver waits for it. */

import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { transmitqOf } from '../../src/spec/console.ts'
import { VIRTIO_RING_F_EVENT_IDX } from '../../src/spec/features.ts'
import type { PortSettings } from '../../src/device/port-settings.ts'
import { BASIC, RawDriver } from '../support/raw-driver.ts'
import { settle, until } from '../support/pair.ts'

const SETTLE_MS = 20

async function open(settings: Partial<Omit<PortSettings, 'id'>> = {}, features = BASIC | VIRTIO_RING_F_EVENT_IDX) {
  const raw = new RawDriver({ device: { settleMs: SETTLE_MS }, tireless: true })
  const { port, chardev } = await raw.host({
    name: 'org.test.0',
    ...settings,
    ...(settings.console ? { id: 1 } : {}),
  })
  raw.start(features).ready().open(1)
  raw.messages()
  const transmitq = raw.queue(transmitqOf(1))
  let next = 0
  /** Makes one buffer available. */
  const write = (): void => {
    const id = next++ % 16
    transmitq.desc(id, transmitq.pageAddress(id), 1, 0)
    transmitq.avail(id)
    transmitq.notify()
  }
  /** As Linux does before each write: takes what is used, and with that asks to hear of the next. */
  const reclaim = (): number => {
    const { length } = transmitq.takeUsed()
    transmitq.setUsedEvent(transmitq.seenUsed)
    return length
  }
  raw.interrupts.length = 0
  return { raw, port, chardev, transmitq, write, reclaim }
}

describe('a driver that comes by itself', () => {
  it.each<Partial<PortSettings>>([{}, { console: true, policy: 'drop-oldest' }, { policy: 'discard' }])(
    'finds its buffers at once and is not interrupted: %j',
    async (settings) => {
      const { raw, write, reclaim } = await open(settings)
      for (let i = 0; i < 200; i++) {
        write()
        expect(reclaim()).toBe(1)
      }
      await sleep(SETTLE_MS * 3)
      expect(raw.interrupts).toEqual([])
    },
  )

  it('is told of its last buffers, once, when it does not come any more', async () => {
    const { raw, chardev, write, reclaim } = await open()
    for (let i = 0; i < 40; i++) {
      write()
      if (i === 36) reclaim()
      await sleep(1)
    }
    expect(Buffer.concat(chardev.received).length).toBe(40) // the bytes themselves never wait
    await until(() => raw.interrupts.length > 0, 'the interrupt')
    expect(reclaim()).toBe(3)
    await sleep(SETTLE_MS * 3)
    expect(raw.interrupts).toEqual([transmitqOf(1)])
  })
})

describe('a driver that does not', () => {
  it('is interrupted for several buffers together', async () => {
    const { raw, write, reclaim, port } = await open()
    for (let i = 0; i < 3; i++) write()
    expect(raw.interrupts).toEqual([])
    await until(() => raw.interrupts.length > 0, 'the interrupt')
    expect(reclaim()).toBe(3)
    expect(raw.interrupts).toEqual([transmitqOf(1)])
    expect(port.stats()).toMatchObject({ transmitBuffers: 3, interrupts: 1 })
  })

  it.each([
    ['with EVENT_IDX', BASIC | VIRTIO_RING_F_EVENT_IDX],
    ['without', BASIC],
  ])('is interrupted at once after a trial, where it waits for each: %s', async (_, features) => {
    const { raw, write, reclaim } = await open({}, features)
    const told = async (): Promise<boolean> => {
      raw.interrupts.length = 0
      write()
      const atOnce = raw.interrupts.length === 1
      await until(() => raw.interrupts.length === 1, 'the interrupt')
      reclaim()
      return atOnce
    }
    // Each trial in vain is followed by a longer pause before the next.
    const pauses = []
    for (let i = 0; i < 8; i++) pauses.push(await told())
    expect(pauses).toEqual([false, true, false, true, true, false, true, true])
  })

  it('is interrupted at once when a quarter of the ring is out', async () => {
    const { raw, transmitq, write } = await open()
    const quarter = raw.transport.queueSizeMax(transmitqOf(1)) / 4
    for (let i = 1; i < quarter; i++) write()
    expect(raw.interrupts).toEqual([])
    write()
    expect(raw.interrupts).toEqual([transmitqOf(1)])
    expect(transmitq.takeUsed().length).toBe(quarter)
  })
})

it('the interrupt comes before the port is removed, and its ring is not touched afterwards', async () => {
  const { raw, transmitq, write } = await open()
  write()
  raw.device.removePort(1)
  expect(raw.interrupts).toContain(transmitqOf(1))
  raw.interrupts.length = 0
  await sleep(SETTLE_MS * 2)
  expect(raw.interrupts).not.toContain(transmitqOf(1))
  expect(transmitq.takeUsed().length).toBe(1)
})

it('no interrupt after a reset', async () => {
  const { raw, write } = await open()
  write()
  raw.transport.writeStatus(0)
  await sleep(SETTLE_MS * 2)
  await settle()
  expect(raw.interrupts).toEqual([])
})
