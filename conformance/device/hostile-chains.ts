/** Chains that break the rules: each must be refused or returned, and a reset must bring the device back (§2.7). */

import { CONTROL_TRANSMITQ, receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../../src/spec/features.ts'
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/spec/split.ts'
import { writeDesc, type RawQueue } from '../../test/support/raw-queue.ts'
import { check, NotApplicable, same, type Case } from '../case.ts'
import { BASIC } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

const NEXT = VIRTQ_DESC_F_NEXT
const WRITE = VIRTQ_DESC_F_WRITE
const INDIRECT = VIRTQ_DESC_F_INDIRECT
const TABLE = 0x4000
const FEATURES = BASIC | VIRTIO_RING_F_INDIRECT_DESC

/** A port that is open on both ends, and both its queues. */
async function open(test: DeviceTest, features: bigint = FEATURES): Promise<{ tx: RawQueue; rx: RawQueue }> {
  await test.up({ features })
  const port = test.port()
  const peer = await test.tryConnect(port)
  peer?.write(Buffer.from('for the guest'))
  await test.open(port)
  return { tx: test.queue(transmitqOf(port.id)), rx: test.queue(receiveqOf(port.id)) }
}

/** Either is right: the device asks for a reset, or gives the chain back. It must do one of them. */
async function dealtWith(test: DeviceTest, queue: RawQueue): Promise<void> {
  await test.until(() => test.needsReset || queue.usedIdx === queue.availIdx, 'DEVICE_NEEDS_RESET, or the chain back')
}

/** Writes descriptors and makes the first available: `[address, len, flags, next]`. */
function lay(queue: RawQueue, descs: readonly (readonly [number, number, number, number?])[]): void {
  descs.forEach(([address, len, flags, next = 0], i) => queue.desc(i, address, len, flags, next))
  queue.avail(0)
  queue.notify()
}

/** The same in an indirect table behind descriptor 0. */
function layIndirect(
  queue: RawQueue,
  descs: readonly (readonly [number, number, number, number?])[],
  { len = 16 * descs.length, flags = INDIRECT, address = queue.region.base + TABLE } = {},
): void {
  descs.forEach(([at, bytes, bits, next = 0], i) => writeDesc(queue.view, TABLE + 16 * i, at, bytes, bits, next))
  lay(queue, [[address, len, flags]])
}

type Attack = (queue: RawQueue, test: DeviceTest) => void

const page = (queue: RawQueue, i = 0): number => queue.pageAddress(i)

/** On a transmitq. */
const CHAINS: Readonly<Record<string, Attack>> = {
  'a descriptor that follows itself': (q) => lay(q, [[page(q), 8, NEXT, 0]]),
  'a loop over the whole table': (q) =>
    lay(
      q,
      Array.from({ length: q.size }, (_, i) => [page(q), 8, NEXT, (i + 1) % q.size]),
    ),
  'next past the table': (q) => lay(q, [[page(q), 8, NEXT, q.size]]),
  'next at 65535': (q) => lay(q, [[page(q), 8, NEXT, 0xffff]]),
  'a head past the table': (q) => (q.avail(q.size), q.notify()),
  'head 65535': (q) => (q.avail(0xffff), q.notify()),
  'as many descriptors as the table has': (q) =>
    lay(
      q,
      Array.from({ length: q.size }, (_, i) => [page(q), 1, i + 1 < q.size ? NEXT : 0, i + 1]),
    ),
  'readable after writable': (q) =>
    lay(q, [
      [page(q), 8, WRITE | NEXT, 1],
      [page(q, 1), 8, 0],
    ]),
  'more than 2^32 bytes': (q) =>
    lay(
      q,
      Array.from({ length: 8 }, (_, i) => [page(q), 0xffff_ffff, i < 7 ? NEXT : 0, i + 1]),
    ),
  'address and length around 2^64': (q) => lay(q, [[2 ** 64 - 4096, 8192, 0]]),
  'nothing there': (q, test) => lay(q, [[test.machine.hole, 8, 0]]),
  'half in memory, half not': (q, test) =>
    lay(q, [
      [page(q), 0x7fff_ffff, NEXT, 1],
      [test.machine.hole, 8, 0],
    ]),
  'over its own table': (q) => lay(q, [[q.at.desc, 4096, 0]]),
  'over its own used ring': (q) => lay(q, [[q.at.used, 64, 0]]),
  'writable in a transmitq': (q) => lay(q, [[page(q), 64, WRITE]]),
  'all flags there are': (q) =>
    lay(q, [
      [page(q), 64, 0xffff, 1],
      [page(q), 64, 0xffff, 2],
      [page(q), 64, 0],
    ]),
}

const TABLES: Readonly<Record<string, Attack>> = {
  'a table in a table': (q) => layIndirect(q, [[q.region.base + TABLE, 16, INDIRECT]]),
  'a table of 0 bytes': (q) => layIndirect(q, [[page(q), 8, 0]], { len: 0 }),
  'a table of 15 bytes': (q) => layIndirect(q, [[page(q), 8, 0]], { len: 15 }),
  'a table of 17 bytes': (q) => layIndirect(q, [[page(q), 8, 0]], { len: 17 }),
  'a table of 4 GiB less 16 bytes': (q) => layIndirect(q, [[page(q), 8, 0]], { len: 0xffff_fff0 }),
  'a table where nothing is': (q, test) => layIndirect(q, [], { len: 64, address: test.machine.hole }),
  'a table around 2^64': (q) => layIndirect(q, [], { len: 64, address: 2 ** 64 - 2048 }),
  'a table and NEXT': (q) => layIndirect(q, [[page(q), 8, 0]], { flags: INDIRECT | NEXT }),
  'a loop in a table': (q) =>
    layIndirect(q, [
      [page(q), 8, NEXT, 1],
      [page(q), 8, NEXT, 0],
    ]),
  'next past the end of a table': (q) => layIndirect(q, [[page(q), 8, NEXT, 7]]),
}

/** On a receiveq, while the host has bytes for it. */
const BUFFERS: Readonly<Record<string, Attack>> = {
  'no writable byte': (q) => lay(q, [[page(q), 8, 0]]),
  empty: (q) => lay(q, [[page(q), 0, WRITE]]),
  'nothing there': (q, test) => lay(q, [[test.machine.hole, 64, WRITE]]),
  'read-only memory': (q, test) => {
    if (test.machine.readOnly === undefined) throw new NotApplicable('the machine has no read-only memory')
    lay(q, [[test.machine.readOnly, 64, WRITE]])
  },
  'its own available ring': (q) => lay(q, [[q.at.avail + 1024, 64, WRITE]]),
  'its own used ring': (q) => lay(q, [[q.at.used, 64, WRITE]]),
  'its own table': (q) => lay(q, [[q.at.desc, 64, WRITE]]),
  'a descriptor that follows itself': (q) => lay(q, [[page(q), 8, WRITE | NEXT, 0]]),
}

async function all(
  test: DeviceTest,
  attacks: Readonly<Record<string, Attack>>,
  which: 'tx' | 'rx',
  wait: boolean,
): Promise<void> {
  const parts = Object.entries(attacks).map(([name, attack]) => [
    name,
    async (): Promise<void> => {
      const queue = (await open(test))[which]
      attack(queue, test)
      if (wait) await dealtWith(test, queue)
      else await test.settle()
      await test.works()
    },
  ])
  await test.parts(Object.fromEntries(parts) as Record<string, () => Promise<void>>)
}

export const CHAIN_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'B1',
    async run(test) {
      await test.parts({
        'descriptors without a byte': async () => {
          const { tx } = await open(test)
          for (let i = 0; i < 4; i++) tx.chain([{ address: tx.pageAddress(0), len: 0 }])
          tx.notify()
          await dealtWith(test, tx)
          await test.works()
        },
        'a length of 2^32 - 1': async () => {
          const { tx } = await open(test)
          tx.chain([{ address: tx.pageAddress(0), len: 0xffff_ffff }])
          tx.notify()
          await dealtWith(test, tx)
          await test.works()
        },
        'an index that jumps past the queue': async () => {
          const { tx } = await open(test)
          for (let i = 0; i < tx.size; i++) tx.desc(i, tx.pageAddress(0), 1, 0)
          tx.setAvailIdx(tx.availIdx + tx.size + 1)
          tx.notify()
          // Looking at entries that were there before is as good as saying that they cannot be.
          await dealtWith(test, tx)
          await test.works()
        },
        'rings of no entries': async () => {
          test.negotiate(BASIC & test.offered)
          const queue = test.make(0, 2)
          test.place(queue)
          test.registers.write('queue_size', 0)
          test.registers.write('queue_enable', 1)
          test.status = 15
          queue.notify()
          await test.settle()
          await test.works()
        },
        'notifications of queues that are not there': async () => {
          await test.up()
          const { notify } = test.registers.structures
          const last = Math.min(notify.len, test.machine.access.barSizes[notify.bar]! - notify.offset) - 4
          for (const value of [0xffff, 0x8000, test.registers.read('num_queues')])
            for (const at of [0, last]) test.registers.pci.setBar16(notify.bar, notify.offset + at, value)
          await test.settle()
          await test.works()
        },
      })
    },
  },
  {
    id: 'B2',
    async run(test) {
      await test.parts({
        chains: () => all(test, CHAINS, 'tx', true),
        tables: async () => {
          test.needs(VIRTIO_RING_F_INDIRECT_DESC, 'INDIRECT_DESC')
          await all(test, TABLES, 'tx', true)
        },
        'a table that was not negotiated': async () => {
          const { tx } = await open(test, BASIC)
          layIndirect(tx, [[page(tx), 8, 0]])
          await dealtWith(test, tx)
          await test.works()
        },
        buffers: () => all(test, BUFFERS, 'rx', false),
        'rings over each other': async () => {
          await test.up({ queues: [0, 1, 2, 3] })
          const queue = test.make(receiveqOf(1), 4)
          queue.at.avail = queue.at.desc
          queue.at.used = queue.at.desc + 4
          test.place(queue)
          test.registers.write('queue_enable', 1)
          queue.notify()
          await test.settle()
          await test.works()
        },
        'rings where nothing is': async () => {
          for (const base of [test.machine.hole, 2 ** 52, 2 ** 64 - 2 ** 16]) {
            test.negotiate(BASIC & test.offered)
            const queue = test.make(0, 4)
            queue.at.desc = base
            queue.at.avail = base + 0x1000
            queue.at.used = base + 0x2000
            test.place(queue)
            test.registers.write('queue_enable', 1)
            test.status = 15
            queue.notify()
            await test.settle()
          }
          await test.works()
        },
      })
    },
  },
  {
    id: 'B5',
    async run(test) {
      const { tx } = await open(test)
      tx.desc(0, page(tx), 4, 0)
      tx.avail(0)
      tx.avail(0)
      tx.avail(0)
      tx.notify()
      await dealtWith(test, tx)
      if (!test.needsReset)
        same(
          tx.takeUsed().map(({ id }) => id),
          [0, 0, 0],
          'heads in the used ring',
        )
      await test.works()
      // A bad chain behind good ones: the good ones are not lost.
      const again = (await open(test)).tx
      again.put(Uint8Array.of(0x31))
      again.put(Uint8Array.of(0x32))
      again.avail(again.size)
      again.notify()
      await dealtWith(test, again)
      await test.works()
    },
  },
  {
    id: 'D3',
    async run(test) {
      const { rx, tx } = await open(test)
      // To the last byte of a region, and one further where nothing follows.
      const end = rx.pages.base + rx.pages.size
      rx.chain([{ address: end - 1, len: 1, write: true }])
      rx.notify()
      tx.chain([{ address: tx.pages.base + tx.pages.size - 1, len: 1 }])
      tx.notify()
      await test.until(() => tx.usedIdx === 1, 'the last byte of a region to be sent')
      check(!test.needsReset, 'the device needs a reset for the last byte of a region')
      tx.chain([{ address: test.machine.hole - 1, len: 0xffff_ffff }])
      tx.notify()
      await dealtWith(test, tx)
      await test.works()
    },
  },
  {
    id: 'S2',
    async run(test) {
      for (const queue of [CONTROL_TRANSMITQ, 1]) {
        await test.up({ features: BASIC | VIRTIO_RING_F_EVENT_IDX })
        const ring = test.queue(test.queueIndices().includes(queue) ? queue : 1)
        const before = ring.usedIdx
        for (let i = 0; i < ring.size; i++) ring.desc(i, page(ring), 8, NEXT, (i + 1) % ring.size)
        ring.avail(0)
        ring.notify()
        await test.until(() => test.needsReset, `DEVICE_NEEDS_RESET for a loop in queue ${ring.index}`)
        same(ring.usedIdx, before, 'used.idx of a queue whose chain has no end')
      }
      await test.works()
    },
  },
]
