import * as fc from 'fast-check'
import { closeSync, ftruncateSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createEventfd } from '../../../../src/ffi/eventfd.ts'
import { createMemfd } from '../../../../src/ffi/mmap.ts'
import { access, concat, FakeVmm, message, turn, u32, u64 } from '../../../support/fake-vmm.ts'
import { openFds, openRig, until, type Rig } from './rig.ts'
import { ToyFunction } from './toy-function.ts'

const EINVAL = 22
const ENOTTY = 25

const u16 = (n: number): Buffer => u32(n).subarray(0, 2)
const json = (text: string | Uint8Array): Buffer => concat(u32(0), Buffer.from(text))
const region = (index: number, argsz = 32): Buffer => concat(u32(argsz), u32(0), u32(index), u32(0), u64(0), u64(0))

let rig: Rig
let before: string[]
beforeEach(async () => {
  rig = await openRig()
  before = openFds()
})
/** Whatever happened, the server is alive, clean, and serves the next VMM. */
afterEach(async () => {
  await until(() => !rig.server.attached && openFds().length === before.length, 'the server to be clean')
  expect(openFds()).toEqual(before)
  expect(rig.memory.regions).toEqual([])
  const next = await FakeVmm.attach(rig.path)
  expect((await next.request(9, access(7, 0, 4))).errno).toBe(0)
  next.close()
  await rig.detached()
  rig.end()
})

/** Sends bytes and expects to be hung up on. */
async function fatal(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
  const vmm = await FakeVmm.attach(rig.path)
  await vmm.send(bytes, fds)
  expect(await vmm.next()).toBeUndefined()
  vmm.close()
  await rig.detached()
}

test('E1: a size below the header or above the limit ends the connection, with one line', async () => {
  for (const size of [0, 1, 15, (1 << 20) + 65, 0x7fff_ffff, 0xffff_ffff]) {
    rig.lines.length = 0
    await fatal(message(1, 9, access(7, 0, 4), 0, size))
    expect(rig.lines.filter((l) => l.includes('detached'))).toEqual([
      expect.stringContaining(`a message of ${size} bytes`),
    ])
  }
})

test('E1: a size that lies about the payload', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  // too short a payload for each command, then payload where none is expected
  for (const command of [2, 3, 4, 5, 7, 8, 9, 10])
    for (const len of [0, 1, 3, 7, 11, 15])
      expect([command, len, await vmm.errno(command, Buffer.alloc(len, 0xff))]).toEqual([command, len, EINVAL])
  expect(await vmm.errno(9, access(7, 0, 4, Buffer.alloc(1)))).toBe(EINVAL)
  expect(await vmm.errno(10, access(0, 0, 4, Buffer.alloc(3)))).toBe(EINVAL)
  expect(await vmm.errno(10, access(0, 0, 4, Buffer.alloc(5)))).toBe(EINVAL)
  expect(await vmm.errno(10, access(0, 0, 0xffff_fff0, Buffer.alloc(16)))).toBe(EINVAL)
  vmm.close()
})

test('E1: versions that are none', async () => {
  const bad = [
    Buffer.alloc(0),
    Buffer.alloc(3),
    concat(u16(1), u16(0)),
    concat(u16(0xffff), u16(0xffff)),
    json('{}'), // no NUL
    json('\0'),
    json('null\0'),
    json('7\0'),
    json('{"capabilities":\0'),
    json(Buffer.from([0xff, 0xfe, 0xff, 0])),
    json(`${'['.repeat(4000)}\0`),
    json(`${'{"a":'.repeat(700)}1${'}'.repeat(700)} x\0`),
    json(`{"x":"${'y'.repeat(100_000)}"}\0`),
  ]
  for (const payload of bad) {
    const vmm = new FakeVmm(rig.path)
    const reply = await vmm.request(1, payload)
    expect([payload.subarray(0, 40).toString('latin1'), reply.errno]).toEqual([
      payload.subarray(0, 40).toString('latin1'),
      EINVAL,
    ])
    expect(await vmm.next()).toBeUndefined()
    vmm.close()
  }
  expect(rig.toy.log).toEqual([])
  expect(rig.events).toEqual([])
})

test('E1: versions that are odd but can be served', async () => {
  const good = [
    '', // no JSON at all: defaults
    '{}\0',
    '[]\0',
    '{"capabilities":null}\0',
    '{"capabilities":7}\0',
    '{"capabilities":{"max_data_xfer_size":"x","max_msg_fds":-1,"twin_socket":{}}}\0',
    '{"capabilities":{"max_data_xfer_size":1e308}}\0',
    '{"capabilities":{"__proto__":{"max_data_xfer_size":1}}}\0',
    `${'['.repeat(2000)}${']'.repeat(2000)}\0`,
  ]
  for (const json of good) {
    const vmm = new FakeVmm(rig.path)
    expect([json, (await vmm.version(json)).errno]).toEqual([json, 0])
    vmm.close()
    await rig.detached()
  }
})

test('nothing is served before VERSION, and VERSION only once', async () => {
  for (const command of [0, 2, 3, 4, 9, 10, 13, 0xffff]) {
    const vmm = new FakeVmm(rig.path)
    expect(await vmm.errno(command, Buffer.alloc(32))).toBe(EINVAL)
    expect(await vmm.next()).toBeUndefined()
    vmm.close()
  }
  expect(rig.toy.log).toEqual([])
  const vmm = await FakeVmm.attach(rig.path)
  expect((await vmm.version()).errno).toBe(EINVAL)
  expect((await vmm.request(9, access(7, 0, 4))).errno).toBe(0)
  vmm.close()
})

test('commands that are not ours are ENOTTY: IO_FDS, DMA from the VMM, WRITE_MULTI, FEATURE, unknown', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  for (const command of [0, 6, 11, 12, 14, 15, 16, 17, 18, 31, 32, 255, 0xffff])
    expect([command, await vmm.errno(command, Buffer.alloc(64))]).toEqual([command, ENOTTY])
  vmm.close()
})

test('an error for a request that wants no reply is only counted', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  for (const command of [2, 3, 9, 10, 16, 0xffff]) await vmm.send(message(1, command, Buffer.alloc(5), 0x10))
  expect((await vmm.request(9, access(7, 0, 4))).errno).toBe(0)
  expect(rig.server.counters).toMatchObject({ refused: 6 })
  vmm.close()
})

test('replies, error replies and other types', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  for (const flags of [0x1, 0x21, 0x11, 0x31, 0xffff_fff1]) await vmm.send(message(0, 11, Buffer.alloc(40), flags))
  await vmm.send(message(0, 9, access(7, 0, 4), 1))
  expect((await vmm.request(9, access(7, 0, 4))).errno).toBe(0)
  expect(rig.server.counters).toMatchObject({ strayReplies: 6 })
  for (const flags of [2, 0xf, 0x1f]) {
    vmm.close()
    await rig.detached()
    await fatal(message(1, 9, access(7, 0, 4), flags))
  }
})

test('E2: accesses outside, of nothing, of too much, of regions that are none', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const bad: [region: number, offset: number | bigint, count: number][] = [
    [0, 0x4000, 1],
    [0, 0x3fff, 2],
    [0, 0xffff_ffff_ffff_ffffn, 1],
    [0, 0xffff_ffff_ffff_ffffn, 0xffff_ffff],
    [0, 0x1_0000_0000n, 4],
    [0, 0xffff_ffff, 0xffff_ffff],
    [0, 0, 0],
    [0, 0, (1 << 20) + 1],
    [0, 0, 0x4001],
    [2, 0, 4],
    [6, 0, 4],
    [8, 0, 4],
    [9, 0, 4],
    [0xffff_ffff, 0, 4],
    [7, 256, 1],
    [7, 253, 4],
  ]
  for (const [region, offset, count] of bad) {
    expect([region, offset, count, await vmm.errno(9, access(region, offset, count))]).toEqual([
      region,
      offset,
      count,
      EINVAL,
    ])
    if (count <= 0x5000) expect(await vmm.errno(10, access(region, offset, count, Buffer.alloc(count)))).toBe(EINVAL)
  }
  expect(rig.toy.writes).toBe(0)
  expect(await vmm.errno(9, access(0, 0x3fff, 1))).toBe(0)
  expect(await vmm.errno(9, access(0, 0, 0x4000))).toBe(0)
  vmm.close()
})

test('E2: questions about regions and interrupts that are none', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  for (const index of [9, 100, 0xffff_ffff]) expect(await vmm.errno(5, region(index))).toBe(EINVAL)
  for (const argsz of [0, 31]) expect(await vmm.errno(5, region(0, argsz))).toBe(EINVAL)
  expect((await vmm.request(5, region(0, 0xffff_ffff))).payload).toHaveLength(32)
  expect((await vmm.request(5, region(6))).payload.readBigUInt64LE(16)).toBe(0n)
  for (const index of [3, 4, 5, 0xffff_ffff])
    expect(await vmm.errno(7, concat(u32(16), u32(0), u32(index), u32(0)))).toBe(EINVAL)
  expect(await vmm.errno(4, concat(u32(15), u32(0), u32(0), u32(0)))).toBe(EINVAL)
  vmm.close()
})

test('E3: a client that vanishes within a message, with descriptors in the air', async () => {
  const eventfd = createEventfd()
  const set = message(1, 8, concat(u32(20), u32(0x24), u32(2), u32(0), u32(1)))
  for (const len of [1, 15, 16, 20, set.length - 1]) {
    const vmm = await FakeVmm.attach(rig.path)
    await vmm.send(set.subarray(0, len), [eventfd])
    await turn()
    vmm.close()
    await rig.detached()
  }
  closeSync(eventfd)
  expect(rig.events.filter((e) => e.includes('within a message'))).toHaveLength(5)
})

test('E3: descriptors that nobody wants are closed, on every command, in any number', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const eventfd = createEventfd()
  const open = openFds().length
  for (const count of [1, 16, 17, 253])
    for (const command of [1, 2, 3, 4, 5, 7, 8, 9, 10, 13, 16, 0xffff])
      await vmm.request(command, Buffer.alloc(32), new Array<number>(count).fill(eventfd))
  expect(openFds().length).toBe(open)
  closeSync(eventfd)
  vmm.close()
})

test('E3: more descriptors than a message may have, even where there are as many vectors', async () => {
  const wide = await openRig(new ToyFunction(0x4000, 64))
  const vmm = await FakeVmm.attach(wide.path)
  const eventfd = createEventfd()
  const open = openFds().length
  expect(await vmm.setIrqs(0x24, 2, 0, 17, new Array<number>(17).fill(eventfd))).toBe(EINVAL)
  expect(openFds().length).toBe(open)
  expect(await vmm.setIrqs(0x24, 2, 40, 16, new Array<number>(16).fill(eventfd))).toBe(0)
  expect(openFds().length).toBe(open + 16)
  closeSync(eventfd)
  vmm.close()
  await wide.detached()
  wide.end()
})

test('E3: descriptors in the middle of a message belong to nobody', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const eventfd = createEventfd()
  const whole = message(1, 10, access(0, 0, 64, Buffer.alloc(64)))
  await vmm.send(whole.subarray(0, 40))
  await turn()
  await vmm.send(whole.subarray(40, 50), [eventfd])
  expect(await vmm.next()).toBeUndefined()
  closeSync(eventfd)
  vmm.close()
})

test('any bytes at all: hung up on or answered, never thrown, never stuck, nothing leaked', async () => {
  const eventfd = createEventfd()
  const ram = createMemfd('ram', true)
  ftruncateSync(ram, 1 << 20)
  const piece = fc.record({
    bytes: fc.oneof(
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }) },
      {
        weight: 4,
        arbitrary: fc
          .record({
            command: fc.oneof(fc.integer({ min: 0, max: 19 }), fc.nat(0xffff)),
            flags: fc.constantFrom(0, 0, 0, 0x10, 1, 0x21, 2),
            payload: fc.uint8Array({ maxLength: 64 }),
            words: fc.array(fc.oneof(fc.nat(40), fc.constantFrom(0x24, 4096, 1 << 20, 0xffff_ffff)), { maxLength: 8 }),
          })
          .map(({ command, flags, payload, words }) => message(1, command, concat(...words.map(u32), payload), flags)),
      },
    ),
    fds: fc.constantFrom([], [], [], [eventfd], [ram], [eventfd, ram]),
    pause: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 20 }), async (pieces) => {
      const vmm = await FakeVmm.attach(rig.path)
      try {
        for (const { bytes, fds, pause } of pieces) {
          if (bytes.length > 0) await vmm.send(bytes, fds)
          if (pause) await turn()
        }
      } catch (error) {
        if (!(error instanceof Error) || !error.message.includes('hung up')) throw error
      }
      vmm.close()
      await rig.detached()
    }),
    { numRuns: 300 },
  )
  closeSync(eventfd)
  closeSync(ram)
  expect(rig.lines.filter((l) => l.startsWith('error'))).toEqual([])
})
