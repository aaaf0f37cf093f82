/** A guest that ends: what its programs wrote last arrives, whether or not the device was notified of it. */

import { describe, expect, it } from 'vitest'
import { transmitqOf } from '../../src/spec/console.ts'
import { RawDriver } from '../support/raw-driver.ts'

async function open(ports: number, device: ConstructorParameters<typeof RawDriver>[0] = {}) {
  const raw = new RawDriver(device)
  const hosts = []
  for (let id = 1; id <= ports; id++) hosts.push(await raw.host({ name: `org.test.${id}`, id }))
  raw.start().ready(64)
  for (let id = 1; id <= ports; id++) raw.open(id)
  return { raw, hosts }
}

/** Makes a buffer available without a notification: the device has said that it needs none, or will get it too late. */
function write(raw: RawDriver, id: number, text: string): void {
  const queue = raw.queue(transmitqOf(id))
  queue.page(0).set(Buffer.from(text))
  queue.desc(0, queue.pageAddress(0), text.length, 0)
  queue.avail(0)
}

describe('what a guest writes last', () => {
  it('arrives before the reset', async () => {
    const { raw, hosts } = await open(3)
    for (let id = 1; id <= 3; id++) write(raw, id, `42 from ${id}`)
    raw.reset()
    expect(hosts.map(({ chardev }) => chardev.text)).toEqual(['42 from 1', '42 from 2', '42 from 3'])
    expect(hosts.map(({ port }) => port.stats().guestToHostBytes)).toEqual([9, 9, 9])
    expect(raw.device.faults).toBe(0)
  })

  it('arrives before the VMM has gone, which resets the device', async () => {
    const { raw, hosts } = await open(1)
    write(raw, 1, 'exit 0')
    raw.pci.reset()
    expect(hosts[0]!.chardev.text).toBe('exit 0')
  })

  it('is sent once, and nothing of it afterwards', async () => {
    const { raw, hosts } = await open(1)
    write(raw, 1, 'once')
    raw.reset()
    raw.start().ready().open(1)
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(hosts[0]!.chardev.text).toBe('once')
  })

  it('is not sent for a port whose driver has not made it, nor by a broken ring', async () => {
    const raw = new RawDriver()
    const { chardev } = await raw.host({ name: 'org.test.1' })
    raw.start().ready()
    write(raw, 1, 'of whom')
    raw.reset()
    expect(chardev.text).toBe('')
    raw.start().ready().open(1)
    raw.queue(transmitqOf(1)).setAvailIdx(0x4000)
    raw.reset()
    expect(chardev.text).toBe('')
  })
})
