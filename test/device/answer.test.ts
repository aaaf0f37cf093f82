/** The answer to a lone message is looked for at once, and what follows it, for as long as that pays. */

import { afterEach, expect, it, vi } from 'vitest'
import type { Chardev } from '../../src/chardev/chardev.ts'
import { alone } from '../../src/device/lookout.ts'
import { receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { RawDriver } from '../support/raw-driver.ts'

afterEach(() => vi.restoreAllMocks())

/** A port whose far end answers in the instant that it is given, if `answering`. */
async function open() {
  const raw = new RawDriver()
  const { chardev } = await raw.host({ name: 'org.test.0' })
  raw.start().ready().open(1)
  const [transmitq, receiveq] = [raw.queue(transmitqOf(1)), raw.queue(receiveqOf(1))]
  let ticks = 128e6 // later than the real clock was
  const far = {
    answering: true,
    instants: 0,
    next: 0,
    broken: false,
    ticks: 1,
    pass: (ms: number) => (ticks += 128 * ms),
  }
  let asked = 0
  vi.spyOn(performance, 'now').mockImplementation(() => ticks / 128)
  ;(chardev as Chardev).giveWay = () => {
    far.instants++
    ticks += far.ticks
    if (far.answering && asked > 0) {
      asked--
      chardev.reading = false // nobody tells the port: it has to look
      chardev.send('a')
    } else if (far.next > 0) {
      far.next--
      asked++
      transmitq.put(Uint8Array.of(1)) // nor does the guest notify it
    } else if (far.broken) transmitq.setAvailIdx(30_000)
  }
  /** Writes `count` messages with one notification; how many answers there are then, and how many instants were given. */
  const write = (count = 1): { answers: number; instants: number } => {
    far.instants = 0
    asked = count
    for (let i = 0; i < count; i++) transmitq.put(Uint8Array.of(1))
    transmitq.notify()
    transmitq.takeUsed()
    return { answers: receiveq.takeUsed().length, instants: far.instants }
  }
  far.pass(20) // no other port of late
  const post = (count: number): void => {
    for (let i = 0; i < count; i++) receiveq.postPage(i)
    receiveq.notify()
  }
  return { raw, port: raw.device.port(1)!, far, write, post }
}

/** Instants, of a 128th of a millisecond, of a look in vain: 30 µs for an answer, 100 µs for the guest's next message. */
const ANSWER = 4
const NEXT = 13

it('an answer that comes at once is in the guest before the notification is dealt with', async () => {
  const { write, post } = await open()
  post(8)
  expect(write()).toEqual({ answers: 1, instants: 1 + NEXT })
  expect(write()).toEqual({ answers: 1, instants: 1 })
})

it('and the message that follows the answer is taken without a notification', async () => {
  const { write, post, far, port } = await open()
  post(60)
  far.next = 5
  expect(write()).toEqual({ answers: 6, instants: 11 + NEXT })
  expect(port.stats().guestToHostBytes).toBe(6)
})

it('others have their turn after half a millisecond; then it goes on, if none of them was told something', async () => {
  const { write, post, far, port } = await open()
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  post(60)
  Object.assign(far, { next: 1000, ticks: 3 })
  expect(write().answers).toBe(Math.ceil((64 - 3) / 6) + 1)
  const before = port.stats().guestToHostBytes
  await turn()
  const after = port.stats().guestToHostBytes
  expect(after).toBeGreaterThan(before + 5)
  alone({})
  far.next = 0
  far.instants = 0
  await turn()
  await turn()
  expect(far.instants).toBe(0)
  // It has asked to be notified again.
  far.pass(20)
  expect(write().answers).toBeGreaterThan(0)
})

it('where none comes so soon it is looked for more and more seldom, and again when one does', async () => {
  const { write, post, far } = await open()
  post(8)
  far.answering = false
  const tried = []
  for (let i = 0; i < 16; i++) tried.push(write().instants)
  expect(tried.flatMap((instants, i) => (instants > 0 ? [i] : []))).toEqual([0, 2, 5, 10])
  expect(Math.max(...tried)).toBe(ANSWER)
  for (let i = 0; i < 3; i++) write()
  far.answering = true
  expect(write().answers).toBe(1)
  expect(write().answers).toBe(1)
})

it('one miss after answers that came is forgiven, a second one is not', async () => {
  const { write, post, far } = await open()
  post(20)
  expect(write().answers).toBe(1)
  far.answering = false
  expect(write().instants).toBe(ANSWER)
  expect(write().instants).toBe(ANSWER)
  expect(write().instants).toBe(0)
  expect(write().instants).toBe(ANSWER)
})

it('nothing is looked for after several messages, for a closed port, or without a buffer to put it in', async () => {
  const { raw, port, write, post } = await open()
  post(0)
  const { receiveStalls } = port.stats()
  expect(write().instants).toBe(0)
  expect(port.stats().receiveStalls).toBe(receiveStalls)
  post(8)
  expect(write(2).instants).toBe(0)
  expect(write().instants).toBeGreaterThan(0)
  port.setGuestOpen(false)
  expect(write().instants).toBe(0)
  expect(raw.device.faults).toBe(0)
})

it('nor for 10 ms after another port was told something: it would have to wait', async () => {
  const { write, post, far } = await open()
  post(8)
  alone({})
  far.pass(9.9)
  expect(write()).toEqual({ answers: 0, instants: 0 })
  far.pass(9.9)
  expect(write()).toEqual({ answers: 0, instants: 0 })
  far.pass(0.2)
  expect(write().answers).toBe(1)
})

it('a machine that keeps the processor is not lent it again at once', async () => {
  const { write, post, far } = await open()
  post(8)
  far.ticks = 40
  expect(write().answers).toBe(1)
  far.ticks = 1
  expect(write()).toEqual({ answers: 0, instants: 0 })
})

it('a driver that lies meanwhile is caught', async () => {
  const { raw, write, post, far } = await open()
  post(8)
  far.broken = true
  write()
  expect(raw.device.faults).toBe(1)
})
