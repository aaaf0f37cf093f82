/**
 * Connections beside the attached VMM: whatever they send, and however they end, nothing of the VMM's changes: memory,
 * interrupts, registers, ledger, store. With a keeper and without.
 */

import * as fc from 'fast-check'
import { closeSync, ftruncateSync } from 'node:fs'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { VmmNotes } from '../../../../src/device/attach/vfio-user/vmm-notes.ts'
import { createEventfd, drainEventfd } from '../../../../src/ffi/eventfd.ts'
import { addressOf } from '../../../../src/ffi/libc.ts'
import { createMemfd } from '../../../../src/ffi/mmap.ts'
import { Ledger } from '../../../../src/mem/ledger.ts'
import { access, concat, FakeVmm, message, turn, u32, u64 } from '../../../support/fake-vmm.ts'
import { MemoryStore } from '../../../support/memory-store.ts'
import { openFds, openRig, until, type Rig } from './rig.ts'
import { ToyFunction } from './toy-function.ts'

const RAM = 1 << 20

/** One connection of a stranger: what it sends, piece by piece, and whether it then goes by itself. */
interface Stranger {
  pieces: { bytes: Buffer; descriptors: number }[]
  leaves: boolean
}

const version = (id: number): Buffer => message(id, 1, concat(u32(0), Buffer.from('{"capabilities":{}}\0')))
const requests: readonly ((id: number) => Buffer)[] = [
  version,
  (id) => message(id, 1, concat(u32(0x10001), Buffer.from('{}\0'))),
  (id) => message(id, 2, concat(u32(32), u32(3), u64(0), u64(0), u64(RAM))),
  (id) => message(id, 2, concat(u32(32), u32(3), u64(0), u64(RAM), u64(4096))),
  (id) => message(id, 3, concat(u32(24), u32(0), u64(0), u64(RAM))),
  (id) => message(id, 3, concat(u32(24), u32(2), u64(0), u64(0))),
  (id) => message(id, 8, concat(u32(20), u32(0x21), u32(2), u32(0), u32(0))),
  (id) => message(id, 8, concat(u32(20), u32(0x24), u32(2), u32(0), u32(1))),
  (id) => message(id, 10, access(0, 0, 4, u32(0xdead))),
  (id) => message(id, 10, access(7, 4, 2, Buffer.from([0, 0])), 0x10),
  (id) => message(id, 13, Buffer.alloc(0)),
  (id) => message(id, 11, Buffer.alloc(40), 1),
]

const piece = fc.record({
  bytes: fc.oneof(
    // Ids that the VMM has used too.
    fc.tuple(fc.constantFrom(...requests), fc.integer({ min: 98, max: 108 })).map(([make, id]) => make(id)),
    fc.uint8Array({ minLength: 1, maxLength: 80 }).map((bytes) => Buffer.from(bytes)),
  ),
  descriptors: fc.integer({ min: 0, max: 2 }),
})
const strangers = fc.array(
  fc.record({ pieces: fc.array(piece, { maxLength: 5 }), leaves: fc.boolean() }) satisfies fc.Arbitrary<Stranger>,
  { minLength: 1, maxLength: 5 },
)

interface World {
  rig: Rig
  vmm: FakeVmm
  ram: number
  interrupt: number
  /** Everything that belongs to the VMM. */
  state(): unknown
}

const opened: (() => void)[] = []
afterEach(() => {
  vi.useRealTimers()
  for (const end of opened.splice(0).toReversed()) end()
})

/** An attached VMM with memory, an interrupt and registers of its own. */
async function attachVmm(withKeeper: boolean): Promise<World> {
  const bytes = new Uint8Array(4096)
  const ledger = new Ledger(bytes, Number(addressOf(bytes)))
  const store = new MemoryStore()
  const keep = withKeeper ? { keep: { store, notes: new VmmNotes(ledger) } } : {}
  const rig = await openRig(new ToyFunction(), keep)
  const ram = createMemfd('ram', true)
  ftruncateSync(ram, RAM)
  const interrupt = createEventfd()
  const vmm = await FakeVmm.attach(rig.path)
  opened.push(() => {
    vmm.close()
    rig.end()
    closeSync(ram)
    closeSync(interrupt)
  })
  expect(await vmm.mapMemory(0, RAM, ram)).toBe(0)
  expect(await vmm.setIrqs(0x24, 2, 0, 1, [interrupt])).toBe(0)
  expect(await vmm.errno(10, access(0, 0x10, 4, u32(0xcafe)))).toBe(0)
  const { irq } = rig.toy
  const state = (): unknown => ({
    attached: rig.server.attached,
    counters: { ...rig.server.counters },
    regions: rig.memory.regions.map(({ base, size, address, writable }) => ({ base, size, address, writable })),
    sameIrq: rig.toy.irq === irq,
    function: [...rig.toy.log],
    bar: Buffer.from(rig.toy.bar).toString('latin1'),
    events: [...rig.events],
    ledger: Buffer.from(bytes).toString('latin1'),
    store: [...store.items].map(([name, { fds, note }]) => [name, fds, note]),
  })
  return { rig, vmm, ram, interrupt, state }
}

async function visit({ rig, ram, interrupt }: World, { pieces, leaves }: Stranger): Promise<FakeVmm> {
  const stranger = new FakeVmm(rig.path)
  try {
    for (const { bytes, descriptors } of pieces) await stranger.send(bytes, [ram, interrupt].slice(0, descriptors))
  } catch (error) {
    if (!(error instanceof Error) || !error.message.includes('hung up')) throw error
  }
  await turn()
  if (leaves) stranger.close()
  return stranger
}

/** The VMM's memory, interrupt and registers still work, not only look the same. */
async function works({ rig, vmm, interrupt }: World): Promise<void> {
  drainEventfd(interrupt)
  rig.toy.irq!.msix(0)
  expect(drainEventfd(interrupt)).toBe(1)
  rig.memory.region(0)!.bytes[5] = 7
  expect((await vmm.request(9, access(0, 0x10, 4))).payload.subarray(16)).toEqual(u32(0xcafe))
}

describe.each([
  ['without a keeper', false],
  ['with a keeper', true],
])('%s', (_, withKeeper) => {
  test('whatever strangers send, nothing of the attached VMM changes', async () => {
    const world = await attachVmm(withKeeper)
    const before = world.state()
    const open = openFds()
    await fc.assert(
      fc.asyncProperty(strangers, async (all) => {
        const peers: FakeVmm[] = []
        for (const stranger of all) peers.push(await visit(world, stranger))
        expect(world.state()).toEqual(before)
        for (const peer of peers) peer.close()
        await until(() => openFds().length === open.length, 'their connections to be closed')
        expect(world.state()).toEqual(before)
      }),
      { numRuns: 100 },
    )
    await works(world)
  })

  test('a connection that comes and goes, says VERSION and goes, or is refused as a second VMM', async () => {
    const world = await attachVmm(withKeeper)
    const before = world.state()
    const open = openFds()
    for (const pieces of [[], [version(100)], [version(101), message(101, 13, Buffer.alloc(0))]])
      for (const leaves of [true, false]) {
        const peer = await visit(world, { pieces: pieces.map((bytes) => ({ bytes, descriptors: 0 })), leaves })
        peer.close()
        await until(() => openFds().length === open.length, 'its connection to be closed')
        expect(world.state()).toEqual(before)
      }
    await works(world)
  })

  test('a connection that says nothing until its time is over', async () => {
    const world = await attachVmm(withKeeper)
    const before = world.state()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const silent = new FakeVmm(world.rig.path)
    await turn()
    vi.advanceTimersByTime(5000)
    await turn()
    expect(silent.gone).toBe(true)
    silent.close()
    expect(world.state()).toEqual(before)
    await works(world)
  })
})
