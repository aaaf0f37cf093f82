/**
 * How long VMMs are served at a stretch. The clock is the test's: each piece of work says what it costs, so that what
 * is counted is work, on any machine.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { VmmNotes } from '../../../../src/device/attach/vfio-user/vmm-notes.ts'
import { Turns, type Worker } from '../../../../src/device/attach/vfio-user/turns.ts'
import { Ledger } from '../../../../src/mem/ledger.ts'
import { access, FakeVmm, message, turn } from '../../../support/fake-vmm.ts'
import { MemoryStore } from '../../../support/memory-store.ts'
import { openRig, until } from './rig.ts'
import { ToyFunction } from './toy-function.ts'

let clock = 0
beforeEach(() => {
  clock = 0
})
afterEach(() => void vi.restoreAllMocks())

/** Has `left` pieces of work of `cost` ms each. */
class Pile implements Worker {
  readonly #turns: Turns
  readonly #name: string
  readonly #log: string[]
  readonly #cost: number
  left: number

  constructor(turns: Turns, log: string[], name: string, left: number, cost: number) {
    this.#turns = turns
    this.#log = log
    this.#name = name
    this.left = left
    this.#cost = cost
  }

  work(): boolean {
    while (this.left > 0) {
      this.left--
      clock += this.#cost
      this.#log.push(this.#name)
      if (this.#turns.over) return true
    }
    return false
  }
}

test('a worker has two milliseconds at a stretch, and the event loop its turn after eight', async () => {
  const turns = new Turns(() => clock)
  const log: string[] = []
  const pile = new Pile(turns, log, 'a', 40, 0.5)
  const perTurn: number[] = []
  turns.take(pile)
  perTurn.push(log.length)
  for (let before = log.length; pile.left > 0; before = log.length) {
    await new Promise((resolve) => setImmediate(resolve))
    perTurn.push(log.length - before)
  }
  expect(perTurn.every((count) => count <= 4)).toBe(true)
  expect(log).toHaveLength(40)
})

test('who has more work comes after all others that wait; the quick one waits for one slice each', async () => {
  const turns = new Turns(() => clock)
  const log: string[] = []
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g']
  const piles = names.map((name) => new Pile(turns, log, name, 4, 2))
  for (const pile of piles) turns.take(pile)
  const quick = new Pile(turns, log, 'quick', 1, 0.01)
  turns.take(quick)
  turns.take(quick)
  const before = clock
  await new Promise((resolve) => setImmediate(resolve))
  expect(clock - before).toBeLessThanOrEqual(8)
  await until(() => piles.every((pile) => pile.left === 0), 'all to be done')
  // The first had a slice at once, and waits with the others for its second.
  expect(log.indexOf('quick')).toBeLessThanOrEqual(names.length + 1)
  const slices = names.map(() => 0)
  for (const name of log.filter((entry) => entry !== 'quick')) {
    slices[names.indexOf(name)]!++
    expect(Math.max(...slices) - Math.min(...slices)).toBeLessThanOrEqual(2)
  }
  expect(log.filter((name) => name === 'quick')).toHaveLength(1)
})

test('short turns need no waiting: time counts from the last turn of the event loop', async () => {
  const turns = new Turns(() => clock)
  const log: string[] = []
  for (let i = 0; i < 1000; i++) {
    turns.take(new Pile(turns, log, 'x', 1, 0.02))
    expect(log).toHaveLength(i + 1)
    if (i % 50 === 49) await turn()
  }
})

describe.each([
  ['without a keeper', false],
  ['with a keeper', true],
])('messages %s', (_, withKeeper) => {
  test('a flood of dear messages: four of half a millisecond a turn, whatever they are', async () => {
    vi.spyOn(performance, 'now').mockImplementation(() => clock)
    const toy = new ToyFunction()
    toy.onWrite = () => (clock += 0.5)
    const keep = withKeeper ? { keep: { store: new MemoryStore(), notes: new VmmNotes(new Ledger()) } } : {}
    const rig = await openRig(toy, keep)
    const vmm = await FakeVmm.attach(rig.path)
    const burst = Buffer.concat(
      Array.from({ length: 200 }, () => message(1, 10, access(0, 0, 1, Buffer.alloc(1)), 0x10)),
    )
    let most = 0
    let last = 0
    let going = true
    const count = (): void => {
      most = Math.max(most, toy.writes - last)
      last = toy.writes
      if (going) setImmediate(count)
    }
    setImmediate(count)
    await vmm.send(burst)
    while (toy.writes < 200) await turn()
    going = false
    // One slice from the poll, one from the queue of immediates.
    expect(most).toBeLessThanOrEqual(8)
    // All that came is answered in order, and nothing twice.
    expect((await vmm.request(9, access(0, 0, 1))).errno).toBe(0)
    expect(toy.writes).toBe(200)
    expect(rig.server.counters!.requests).toBe(202)
    vmm.close()
    await rig.detached()
    rig.end()
  })
})
