/** A driver that looks into a ring before it sleeps, and one with more buffers where the device runs out of them. */

import { describe, expect, it } from 'vitest'
import type { DriverOptions } from '../../src/driver/console-options.ts'
import { Patience } from '../../src/driver/patience.ts'
import { Batch } from '../../src/ring/batch.ts'
import { Bench, DATA } from '../ring/tools.ts'
import { Pair, settle, until } from '../support/pair.ts'

describe('patience', () => {
  it('sees what the device has used, gives up where nothing comes, and does not look at all without any', () => {
    const bench = new Bench(8)
    const driver = bench.driver()
    const device = bench.device()
    const batch = new Batch()
    driver.addOne(DATA, 4, false)
    driver.publish()
    const [patient, impatient] = [new Patience(50), new Patience(0)]
    for (let i = 0; i < 5; i++) expect(patient.wait(driver)).toBe(false)
    device.complete(batch, device.gather(batch, 'readable', 4))
    device.flush()
    expect(impatient.wait(driver)).toBe(false)
    expect(patient.wait(driver)).toBe(true)
  })
})

describe('receive buffers', () => {
  /** Bytes that the driver takes for them while it gets a lot; it takes 256 KiB at a time. */
  const growth = async (driver: DriverOptions): Promise<number> => {
    const pair = new Pair({ device: { maxPorts: 4 }, driver })
    const { chardev: host } = await pair.host({ name: 'org.test.0' })
    pair.driver.start()
    await settle()
    const { chardev: guest } = pair.guest(1)
    await settle()
    const taken = (): number => pair.memory.regions.reduce((n, { size }) => n + size, 0)
    const before = taken()
    const data = new Uint8Array(4 << 20)
    host.send(data)
    const sum = (): number => guest.received.reduce((n, { length }) => n + length, 0)
    await until(() => sum() === data.length, 'all of it')
    return taken() - before
  }

  it('are more where the device runs out of them, up to a bound', async () => {
    const grown = await growth({ receiveLen: 4096 })
    expect(grown).toBeGreaterThanOrEqual(256 << 10)
    expect(grown).toBeLessThanOrEqual(512 << 10)
  })

  it('are as many as were asked for', async () => {
    expect(await growth({ receiveLen: 4096, receiveBuffers: 4 })).toBe(0)
  })
})
