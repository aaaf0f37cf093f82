import { closeSync, openSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createEventfd, drainEventfd, signalEventfd } from '../../../../src/ffi/eventfd.ts'
import { openRig, openFds, until, type Rig } from './rig.ts'
import { FakeVmm } from '../../../support/fake-vmm.ts'

const NONE = 1
const BOOL = 2
const EVENTFD = 4
const MASK = 8
const UNMASK = 0x10
const TRIGGER = 0x20
const INTX = 0
const MSI = 1
const MSIX = 2
const EINVAL = 22
const ENOTTY = 25

let rig: Rig
let vmm: FakeVmm
let before: string[]
let eventfds: number[]

beforeEach(async () => {
  rig = await openRig()
  before = openFds()
  eventfds = [createEventfd(), createEventfd(), createEventfd(), createEventfd()]
  vmm = await FakeVmm.attach(rig.path)
})
afterEach(async () => {
  for (const fd of eventfds) closeSync(fd)
  vmm.close()
  await rig.detached()
  expect(openFds()).toEqual(before)
  rig.end()
})

const fired = (): number[] => eventfds.map(drainEventfd)

test('vectors are connected one by one, as QEMU does it', async () => {
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1)).toBe(0)
  rig.toy.irq!.msix(0)
  expect(fired()).toEqual([0, 0, 0, 0])
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 1, 1, [eventfds[1]!])).toBe(0)
  rig.toy.irq!.msix(1)
  rig.toy.irq!.msix(1)
  expect(fired()).toEqual([0, 2, 0, 0])
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 2, 2, [eventfds[2]!, eventfds[3]!])).toBe(0)
  rig.toy.irq!.msix(2)
  rig.toy.irq!.msix(3)
  expect(fired()).toEqual([0, 0, 1, 1])
})

test('an interrupt that was raised before its vector was connected is pending, not lost', async () => {
  rig.toy.irq!.msix(1)
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 1, 1, [eventfds[1]!])).toBe(0)
  expect(fired()).toEqual([0, 1, 0, 0])
  rig.toy.irq!.msix(0)
  expect(await vmm.setIrqs(NONE | TRIGGER, MSIX, 0, 0)).toBe(0) // off: forgets
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, [eventfds[0]!])).toBe(0)
  expect(fired()).toEqual([0, 0, 0, 0])
})

test('the newest descriptor of a vector wins, the old one is closed', async () => {
  await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, [eventfds[0]!])
  const open = openFds().length
  await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, [eventfds[1]!])
  expect(openFds().length).toBe(open)
  rig.toy.irq!.msix(0)
  expect(fired()).toEqual([0, 1, 0, 0])
  await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1)
  expect(openFds().length).toBe(open - 1)
  rig.toy.irq!.msix(0)
  expect(fired()).toEqual([0, 0, 0, 0])
})

test('switching MSI-X off closes all', async () => {
  const open = openFds().length
  await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 4, eventfds)
  expect(openFds().length).toBe(open + 4)
  expect(await vmm.setIrqs(NONE | TRIGGER, MSIX, 0, 0)).toBe(0)
  expect(openFds().length).toBe(open)
})

test('a VMM can fire vectors itself, by count and by choice', async () => {
  await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 4, eventfds)
  expect(await vmm.setIrqs(NONE | TRIGGER, MSIX, 1, 2)).toBe(0)
  expect(fired()).toEqual([0, 1, 1, 0])
  expect(await vmm.setIrqs(BOOL | TRIGGER, MSIX, 0, 4, [], '\x01\x00\x00\x01')).toBe(0)
  expect(fired()).toEqual([1, 0, 0, 1])
})

test('INTx: one signal per unmask, again while the level is high', async () => {
  const irq = rig.toy.irq!
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, INTX, 0, 1, [eventfds[0]!])).toBe(0)
  irq.intx(true)
  irq.intx(true)
  expect(fired()[0]).toBe(1)
  expect(await vmm.setIrqs(NONE | UNMASK, INTX, 0, 1)).toBe(0)
  expect(fired()[0]).toBe(1) // still high
  irq.intx(false)
  expect(await vmm.setIrqs(NONE | UNMASK, INTX, 0, 1)).toBe(0)
  expect(fired()[0]).toBe(0)
  irq.intx(true)
  expect(fired()[0]).toBe(1)
  // low and high again before the VMM has finished with it: told at the unmask
  irq.intx(false)
  irq.intx(true)
  expect(fired()[0]).toBe(0)
  expect(await vmm.setIrqs(NONE | UNMASK, INTX, 0, 1)).toBe(0)
  expect(fired()[0]).toBe(1)
})

test('INTx: masked means silent; a level that rose meanwhile is told at the unmask', async () => {
  await vmm.setIrqs(EVENTFD | TRIGGER, INTX, 0, 1, [eventfds[0]!])
  expect(await vmm.setIrqs(NONE | MASK, INTX, 0, 1)).toBe(0)
  rig.toy.irq!.intx(true)
  expect(fired()[0]).toBe(0)
  expect(await vmm.setIrqs(NONE | UNMASK, INTX, 0, 1)).toBe(0)
  expect(fired()[0]).toBe(1)
})

test('INTx: a level that is high when the line is connected is told', async () => {
  rig.toy.irq!.intx(true)
  await vmm.setIrqs(EVENTFD | TRIGGER, INTX, 0, 1, [eventfds[0]!])
  expect(fired()[0]).toBe(1)
  // off and on: whoever took the first signal is gone
  await vmm.setIrqs(NONE | TRIGGER, INTX, 0, 0)
  await vmm.setIrqs(EVENTFD | TRIGGER, INTX, 0, 1, [eventfds[1]!])
  expect(fired()).toEqual([0, 1, 0, 0])
})

test('INTx: KVM unmasks through an eventfd', async () => {
  await vmm.setIrqs(EVENTFD | TRIGGER, INTX, 0, 1, [eventfds[0]!])
  expect(await vmm.setIrqs(EVENTFD | UNMASK, INTX, 0, 1, [eventfds[3]!])).toBe(0)
  rig.toy.irq!.intx(true)
  expect(drainEventfd(eventfds[0]!)).toBe(1)
  signalEventfd(eventfds[3]!)
  await until(() => drainEventfd(eventfds[0]!) === 1, 'the second signal')
  rig.toy.irq!.intx(false)
  signalEventfd(eventfds[3]!)
  // replaced and taken away: the old one is watched no more
  expect(await vmm.setIrqs(EVENTFD | UNMASK, INTX, 0, 1, [eventfds[2]!])).toBe(0)
  expect(await vmm.setIrqs(EVENTFD | UNMASK, INTX, 0, 1)).toBe(0)
  expect(drainEventfd(eventfds[0]!)).toBe(0)
})

test('E3: counts, ranges, kinds and data that do not fit are refused, and leak no descriptor', async () => {
  const open = openFds()
  const [a, b] = eventfds as [number, number]
  const bad: [flags: number, index: number, start: number, count: number, fds?: number[], data?: string][] = [
    [EVENTFD | TRIGGER, MSIX, 0, 2, [a]], // count and descriptors differ
    [EVENTFD | TRIGGER, MSIX, 0, 1, [a, b]],
    [EVENTFD | TRIGGER, MSIX, 4, 1, [a]],
    [EVENTFD | TRIGGER, MSIX, 3, 2, [a, b]],
    [EVENTFD | TRIGGER, MSIX, 0xffff_ffff, 1, [a]],
    [EVENTFD | TRIGGER, MSIX, 1, 0xffff_ffff, []],
    [EVENTFD | TRIGGER, MSIX, 0, 0, []],
    [EVENTFD | TRIGGER, MSIX, 0, 0, [a]],
    [NONE | TRIGGER, MSIX, 0, 1, [a]], // descriptors that nobody asked for
    [NONE | TRIGGER, MSIX, 0, 0, [a]],
    [BOOL | TRIGGER, MSIX, 0, 4, [], '\x01\x01\x01'], // data too short
    [BOOL | TRIGGER, MSIX, 0, 0],
    [EVENTFD | TRIGGER, INTX, 0, 2, [a, b]],
    [EVENTFD | TRIGGER, INTX, 1, 1, [a]],
    [EVENTFD | TRIGGER, MSI, 0, 1, [a]],
    [EVENTFD | TRIGGER, 3, 0, 1, [a]],
    [EVENTFD | TRIGGER, 4, 0, 1, [a]],
    [EVENTFD | TRIGGER, 5, 0, 1, [a]],
    [EVENTFD | TRIGGER, 0xffff_ffff, 0, 1, [a]],
    [NONE | TRIGGER, 77, 0, 0],
    [EVENTFD | NONE | TRIGGER, MSIX, 0, 1, [a]], // two kinds of data
    [EVENTFD | TRIGGER | MASK, MSIX, 0, 1, [a]], // two actions
    [EVENTFD, MSIX, 0, 1, [a]],
    [TRIGGER, MSIX, 0, 1],
    [0, 0, 0, 0],
    [0x40 | EVENTFD | TRIGGER, MSIX, 0, 1, [a]],
    [0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, [a]],
    [NONE | UNMASK, INTX, 0, 0],
  ]
  for (const [flags, index, start, count, fds, data] of bad)
    expect([flags, index, start, count, await vmm.setIrqs(flags, index, start, count, fds, data)]).toEqual([
      flags,
      index,
      start,
      count,
      EINVAL,
    ])
  expect(await vmm.setIrqs(NONE | MASK, MSIX, 0, 1)).toBe(ENOTTY)
  expect(await vmm.setIrqs(EVENTFD | MASK, INTX, 0, 1, [a])).toBe(ENOTTY)
  expect(await vmm.setIrqs(NONE | TRIGGER, MSI, 0, 0)).toBe(0)
  expect(await vmm.errno(8, Buffer.alloc(19))).toBe(EINVAL)
  expect(await vmm.errno(8, Buffer.alloc(20))).toBe(EINVAL)
  expect(openFds()).toEqual(open)
})

test('only eventfds are interrupts: a pipe or a file could block this process', async () => {
  const open = openFds().length
  const file = openSync('/dev/null', 'r+')
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, [file])).toBe(EINVAL)
  expect(await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 2, [eventfds[0]!, file])).toBe(EINVAL)
  closeSync(file)
  expect(openFds().length).toBe(open)
})

test('vectors that do not exist are ignored', () => {
  for (const vector of [4, -1, 0xffff, 1.5, Number.NaN]) rig.toy.irq!.msix(vector)
  expect(fired()).toEqual([0, 0, 0, 0])
})

test('after the VMM is gone the lines are dead, not dangerous', async () => {
  const irq = rig.toy.irq!
  await vmm.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 4, eventfds)
  await vmm.setIrqs(EVENTFD | TRIGGER, INTX, 0, 1, [eventfds[0]!])
  await vmm.setIrqs(EVENTFD | UNMASK, INTX, 0, 1, [eventfds[3]!])
  vmm.close()
  await rig.detached()
  irq.msix(0)
  irq.intx(true)
  expect(fired()).toEqual([0, 0, 0, 0])
  expect(rig.toy.irq).toBeUndefined()
})
