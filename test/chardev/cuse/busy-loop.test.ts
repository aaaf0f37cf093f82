/** Staying with busy devices: what is dealt with without the event loop, and that the event loop has its turns. */
import { closeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BusyLoop, type Busy, type Waker } from '../../../src/chardev/cuse/busy-loop.ts'
import { createEventfd, drainEventfd, signalEventfd } from '../../../src/ffi/eventfd.ts'

/** An eventfd in the place of a device or an interrupt: each signal is one request. */
class Source implements Busy, Waker {
  readonly fd = createEventfd()
  served = 0
  onServe: () => void = () => {}

  serve(): boolean {
    if (drainEventfd(this.fd) === 0) return false
    this.served++
    this.onServe()
    return true
  }
}

describe('staying with busy devices', () => {
  let sources: Source[]
  let polls: number
  let loop: BusyLoop

  beforeEach(() => {
    sources = [new Source(), new Source(), new Source()]
    polls = 0
    loop = new BusyLoop(() => {
      polls++
      return false
    })
  })
  afterEach(() => {
    for (const { fd } of sources) closeSync(fd)
  })

  it('does nothing where no device was busy', () => {
    signalEventfd(sources[0]!.fd)
    loop.run()
    expect([sources[0]!.served, polls]).toEqual([0, 0])
  })

  it('deals with devices that were busy and with interrupts until nothing comes, and looks into the rings', () => {
    const [one, two, interrupt] = sources as [Source, Source, Source]
    // What comes while it stays: each request is followed by another one, of the other device, and by an interrupt.
    let left = 5
    one.onServe = () => signalEventfd(two.fd)
    two.onServe = () => signalEventfd(left-- > 0 ? one.fd : interrupt.fd)
    loop.setWakers([interrupt])
    for (const device of [one, two]) loop.touch(device)
    signalEventfd(one.fd)
    loop.run()
    expect([one.served, two.served, interrupt.served]).toEqual([6, 6, 1])
    expect(polls).toBeGreaterThanOrEqual(13)
  })

  it('leaves a device alone that has gone, also in the middle', () => {
    const [one, two, interrupt] = sources as [Source, Source, Source]
    loop.setWakers([interrupt])
    for (const device of [one, two]) loop.touch(device)
    two.onServe = () => {
      loop.forget(one)
      loop.forget(two)
    }
    for (const { fd } of [one, two]) signalEventfd(fd)
    loop.run()
    expect([one.served, two.served]).toEqual([0, 1])
  })

  it('does not sleep where nothing would wake it', () => {
    loop.touch(sources[0]!)
    const start = performance.now()
    for (let i = 0; i < 20; i++) loop.run()
    // Asleep it would be two milliseconds each.
    expect(performance.now() - start).toBeLessThan(40)
  })

  it('lets the event loop have its turns while a device is busy all the time, and comes back after them', async () => {
    const [one, , interrupt] = sources as [Source, Source, Source]
    one.onServe = () => signalEventfd(one.fd)
    loop.setWakers([interrupt])
    loop.touch(one)
    signalEventfd(one.fd)
    loop.run()
    const first = one.served
    expect(first).toBeGreaterThan(1)
    await turn()
    await turn()
    expect(one.served).toBeGreaterThan(first)
    one.onServe = () => {}
    await turn()
    await turn()
    const last = one.served
    await turn()
    expect(one.served).toBe(last)
  })
})
