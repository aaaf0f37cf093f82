/** A driver that asks for an interrupt only once several chains are back. */

import { expect, it } from 'vitest'
import { Batch } from '../../src/ring/batch.ts'
import { NO_HEAD, type Used } from '../../src/ring/driver-queue.ts'
import { Bench, DATA } from './tools.ts'

/** A queue with all its chains in flight, and a device that uses the next `count` of them. */
function full(size: number, eventIdx: boolean) {
  const bench = new Bench(size)
  const driver = bench.driver({ eventIdx })
  const device = bench.device(eventIdx)
  const batch = new Batch()
  const used: Used = { head: 0, len: 0 }
  const fill = (): void => {
    while (driver.add([{ address: DATA, len: 4 }], []) !== NO_HEAD);
    driver.publish()
  }
  const use = (count: number): boolean => {
    device.gather(batch, 'readable', 4 * count, count)
    device.complete(batch, batch.list.total)
    return device.flush()
  }
  const takeAll = (): number => {
    let taken = 0
    while (driver.takeUsed(used)) taken++
    return taken
  }
  fill()
  return { driver, fill, use, takeAll }
}

it('the interrupt comes with the chain after those, wherever the index stands', () => {
  const { driver, fill, use, takeAll } = full(8, true)
  for (let round = 0; round < 12_000; round++) {
    expect(driver.enableInterrupts(4)).toBe(false)
    expect([use(1), use(3), use(1), use(1)]).toEqual([false, false, true, false])
    expect(takeAll()).toBe(6)
    fill()
  }
})

it('says when so many are back already, and takes fewer for too few', () => {
  const { driver, use } = full(8, true)
  use(4)
  expect(driver.enableInterrupts(4)).toBe(false)
  use(1)
  expect(driver.enableInterrupts(4)).toBe(true)
  expect(driver.enableInterrupts()).toBe(true)
})

it('without EVENT_IDX the next chain is told', () => {
  const { driver, use } = full(8, false)
  expect(driver.enableInterrupts(4)).toBe(false)
  expect(use(1)).toBe(true)
  expect(driver.enableInterrupts(4)).toBe(true)
})
