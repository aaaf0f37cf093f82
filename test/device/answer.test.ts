/** The answer to a lone message is looked for at once, and what follows it, for as long as that pays. */

import { afterEach, expect, it, vi } from 'vitest'
import type { Chardev } from '../../src/chardev/chardev.ts'
import { again } from '../../src/device/lookout.ts'
import { receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { RawDriver } from '../support/raw-driver.ts'

afterEach(() => vi.restoreAllMocks())

/** A port whose far end answers in the instant that it is given, if `answering`. */
async function open() {
  const raw = new RawDriver()
  const { chardev } = await raw.host({ name: 'org.test.0' })
  raw.start().ready().open(1)
  const [transmitq, receiveq] = [raw.queue(transmitqOf(1)), raw.queue(receiveqOf(1))]
  const far = { answering: true, instants: 0, next: 0, broken: false, ticks: 1 }
  let asked = 0
  let ticks = 0
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

it('and the message that follows the answer is taken without a notification, up to a turn', async () => {
  const { write, post, far, port } = await open()
  post(60)
  far.next = 5
  expect(write()).toEqual({ answers: 6, instants: 11 + NEXT })
  expect(port.stats().guestToHostBytes).toBe(6)
  // Others wait meanwhile, a millisecond at most.
  write() // the pause after that look
  Object.assign(far, { next: 1000, ticks: 3 })
  const { answers } = write()
  expect(answers).toBe(Math.ceil(128 / 6))
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

it('nor where another port had the last word: it would have to wait', async () => {
  const { write, post } = await open()
  post(8)
  again({})
  expect(write()).toEqual({ answers: 0, instants: 0 })
  expect(write().answers).toBe(1)
})

it('a machine that keeps the processor is not lent it again at once', async () => {
  const { write, post, far } = await open()
  post(8)
  const now = vi.spyOn(performance, 'now')
  let clock = 0
  now.mockImplementation(() => (clock += 0.3))
  expect(write().answers).toBe(1)
  now.mockImplementation(() => clock)
  far.instants = 0
  expect(write()).toEqual({ answers: 0, instants: 0 })
})

it('a driver that lies meanwhile is caught', async () => {
  const { raw, write, post, far } = await open()
  post(8)
  far.broken = true
  write()
  expect(raw.device.faults).toBe(1)
})
