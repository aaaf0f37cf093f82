/** When transmit buffers come back: together where nobody waits for them, at once for a driver that does. */

import { describe, expect, it } from 'vitest'
import { transmitqOf } from '../../src/spec/console.ts'
import type { PortSettings } from '../../src/device/port-settings.ts'
import { RawDriver } from '../support/raw-driver.ts'
import { settle, until } from '../support/pair.ts'

const SETTLE_MS = 20

async function open(settings: Partial<Omit<PortSettings, 'id'>> = {}) {
  const raw = new RawDriver({ device: { settleMs: SETTLE_MS } })
  const { port, chardev } = await raw.host({
    name: 'org.test.0',
    ...settings,
    ...(settings.console ? { id: 1 } : {}),
  })
  raw.start().ready().open(1)
  raw.messages()
  const transmitq = raw.queue(transmitqOf(1))
  let next = 0
  /** Makes one buffer available. */
  const write = (len = 1): void => {
    const id = next++ % 16
    transmitq.desc(id, transmitq.pageAddress(id), len, 0)
    transmitq.avail(id)
    transmitq.notify()
  }
  return { raw, port, chardev, transmitq, write }
}

describe('buffers of a transmitq', () => {
  it('are held back while the driver goes on, then come back together with one interrupt', async () => {
    const { raw, chardev, transmitq, write, port } = await open()
    raw.interrupts.length = 0
    for (let i = 0; i < 3; i++) write()
    expect(Buffer.concat(chardev.received).length).toBe(3) // the bytes themselves never wait
    expect(transmitq.takeUsed()).toEqual([])
    await until(() => raw.interrupts.length > 0, 'the interrupt')
    expect(transmitq.takeUsed().map(({ id }) => id)).toEqual([0, 1, 2])
    expect(raw.interrupts).toEqual([transmitqOf(1)])
    expect(port.stats().transmitBuffers).toBe(3)
  })

  it('come back at once for a driver that waits for each, after a trial', async () => {
    const { transmitq, write } = await open()
    write()
    await until(() => transmitq.takeUsed().length === 1, 'the trial to end')
    write()
    expect(transmitq.takeUsed().length).toBe(1)
    // The next trial is in vain as well: longer pauses between them.
    write()
    expect(transmitq.takeUsed().length).toBe(0)
    await until(() => transmitq.takeUsed().length === 1, 'the second trial to end')
    for (let i = 0; i < 2; i++) {
      write()
      expect(transmitq.takeUsed().length).toBe(1)
    }
  })

  it('come back at once when a quarter of the ring, or much memory, is held back', async () => {
    const { raw, transmitq, write } = await open()
    const quarter = raw.transport.queueSizeMax(transmitqOf(1)) / 4
    for (let i = 1; i < quarter; i++) write()
    expect(transmitq.takeUsed().length).toBe(0)
    write()
    expect(transmitq.takeUsed().length).toBe(quarter)
  })

  it.each([{ console: true }, { policy: 'discard' as const }])(
    'never wait where the guest must not: %j',
    async (settings) => {
      const { transmitq, write } = await open(settings)
      for (let i = 0; i < 5; i++) {
        write()
        expect(transmitq.takeUsed().length).toBe(1)
      }
    },
  )

  it('come back before the port is removed, and its ring is not touched afterwards', async () => {
    const { raw, transmitq, write } = await open()
    write()
    expect(transmitq.takeUsed()).toEqual([])
    raw.device.removePort(1)
    expect(transmitq.takeUsed().length).toBe(1)
    const before = transmitq.usedIdx
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS * 2))
    expect(transmitq.usedIdx).toBe(before)
  })

  it('are forgotten with a reset', async () => {
    const { raw, transmitq, write } = await open()
    write()
    raw.transport.writeStatus(0)
    const before = transmitq.usedIdx
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS * 2))
    await settle()
    expect(transmitq.usedIdx).toBe(before)
  })
})
