/** The answer to a lone message is looked for at once, for as long as that pays. */

import { expect, it } from 'vitest'
import type { Chardev } from '../../src/chardev/chardev.ts'
import { receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { RawDriver } from '../support/raw-driver.ts'

/** A port whose far end answers in the instant that it is given, if `answering`. */
async function open() {
  const raw = new RawDriver()
  const { chardev } = await raw.host({ name: 'org.test.0' })
  raw.start().ready().open(1)
  const [transmitq, receiveq] = [raw.queue(transmitqOf(1)), raw.queue(receiveqOf(1))]
  const far = { answering: true, instants: 0 }
  ;(chardev as Chardev).giveWay = () => {
    far.instants++
    if (!far.answering) return
    chardev.reading = false // nobody tells the port: it has to look
    chardev.send('a')
  }
  /** Writes `count` messages with one notification; how many answers there are then, and how many instants were given. */
  const write = (count = 1): { answers: number; instants: number } => {
    far.instants = 0
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

it('an answer that comes at once is in the guest before the notification is dealt with', async () => {
  const { write, post } = await open()
  post(8)
  for (let i = 0; i < 4; i++) expect(write()).toEqual({ answers: 1, instants: 1 })
})

it('where none comes so soon it is looked for more and more seldom, and again when one does', async () => {
  const { write, post, far } = await open()
  post(8)
  far.answering = false
  const tried = []
  for (let i = 0; i < 16; i++) tried.push(write().instants > 0)
  expect(tried.flatMap((did, i) => (did ? [i] : []))).toEqual([0, 2, 5, 10])
  for (let i = 0; i < 3; i++) write()
  far.answering = true
  expect(write()).toEqual({ answers: 1, instants: 1 })
  expect(write()).toEqual({ answers: 1, instants: 1 })
})

it('nothing is looked for after several messages, for a closed port, or without a buffer to put it in', async () => {
  const { raw, port, write, post } = await open()
  const { receiveStalls } = port.stats()
  expect(write().instants).toBe(0)
  expect(port.stats().receiveStalls).toBe(receiveStalls)
  post(8)
  expect(write(2).instants).toBe(0)
  expect(write().instants).toBe(1)
  port.setGuestOpen(false)
  expect(write().instants).toBe(0)
  expect(raw.device.faults).toBe(0)
})
