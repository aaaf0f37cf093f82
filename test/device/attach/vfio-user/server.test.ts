import { existsSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { VmchannelError } from '../../../../src/errors.ts'
import { listenVfioUser } from '../../../../src/device/attach/vfio-user/server.ts'
import { VmmNotes } from '../../../../src/device/attach/vfio-user/vmm-notes.ts'
import { createEventfd } from '../../../../src/ffi/eventfd.ts'
import { closeFd } from '../../../../src/ffi/libc.ts'
import { connectUnix } from '../../../../src/ffi/unix-listen.ts'
import { SILENT } from '../../../../src/log.ts'
import { GuestMemory } from '../../../../src/mem/guest-memory.ts'
import { Ledger } from '../../../../src/mem/ledger.ts'
import { access, concat, FakeVmm, message, turn, u32 } from '../../../support/fake-vmm.ts'
import { MemoryStore } from '../../../support/memory-store.ts'
import { openFds, openRig, until, type Rig } from './rig.ts'
import { ToyFunction } from './toy-function.ts'

const EBUSY = 16

function fail(): never {
  throw new Error('mistake')
}

let rig: Rig
let before: string[]
beforeEach(async () => {
  rig = await openRig()
  before = openFds()
})
afterEach(() => rig.end())

test('registers are read and written, posted or answered, in order', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const write = await vmm.request(10, access(0, 0x10, 4, u32(0xdeadbeef)))
  expect(write.payload).toEqual(access(0, 0x10, 4))
  for (const [offset, count] of [
    [0x20, 1],
    [0x22, 2],
    [0x24, 4],
    [0x28, 8],
    [0x30, 3],
    [0x40, 256],
  ] as const)
    await vmm.send(message(1, 10, access(0, offset, count, Buffer.alloc(count, offset)), 0x10))
  const read = await vmm.request(9, access(0, 0x10, 0x130))
  expect(read.payload.subarray(0, 16)).toEqual(access(0, 0x10, 0x130))
  expect(read.payload.subarray(16)).toEqual(Buffer.from(rig.toy.bar.subarray(0x10, 0x140)))
  expect(rig.toy.bar.subarray(0x28, 0x31)).toEqual(new Uint8Array([40, 40, 40, 40, 40, 40, 40, 40, 0x30]))
  expect((await vmm.request(9, access(0, 0x10, 4))).payload.subarray(16)).toEqual(u32(0xdeadbeef))
  expect(rig.toy.writes).toBe(7)
  vmm.close()
})

test('what a register does not answer reads as zero, never as what was read before', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  expect((await vmm.request(9, access(7, 0, 4))).payload.readUInt32LE(16)).not.toBe(0)
  expect((await vmm.request(9, access(1, 0, 4))).payload.readUInt32LE(16)).toBe(0)
  vmm.close()
})

test('reset resets', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  expect(await vmm.errno(13, Buffer.alloc(0))).toBe(0)
  expect(rig.toy.log).toEqual(['irq', 'reset'])
  vmm.close()
})

test('when the VMM goes the device is detached, reset, without memory, and waits for the next', async () => {
  for (let round = 0; round < 3; round++) {
    rig.events.length = rig.toy.log.length = 0
    const vmm = await FakeVmm.attach(rig.path)
    expect(rig.server.attached).toBe(true)
    vmm.close()
    await rig.detached()
    expect(rig.toy.log).toEqual(['irq', 'no irq', 'reset'])
    expect(rig.events).toEqual(['attach', 'detach: closed by the VMM'])
    expect(rig.server.counters).toBeUndefined()
    expect(await rig.server.checkCoherent(0, 4)).toBe('unknown')
    expect(openFds()).toEqual(before)
  }
})

test('a second VMM is told that the device is busy; the first does not notice', async () => {
  const first = await FakeVmm.attach(rig.path)
  const second = new FakeVmm(rig.path)
  expect((await second.version()).errno).toBe(EBUSY)
  expect(await second.next()).toBeUndefined()
  expect(rig.lines.filter((l) => l.startsWith('warn'))).toHaveLength(1)
  expect((await first.request(9, access(7, 0, 4))).errno).toBe(0)
  expect(rig.toy.log).toEqual(['irq'])
  first.close()
  second.close()
  await rig.detached()
  const third = await FakeVmm.attach(rig.path)
  third.close()
  await rig.detached()
})

test('who only looks whether the socket is alive is no VMM and takes nobody place', async () => {
  const probe = connectUnix(rig.path)
  const vmm = await FakeVmm.attach(rig.path)
  closeFd(probe)
  closeFd(connectUnix(rig.path))
  await turn()
  expect((await vmm.request(9, access(7, 0, 4))).errno).toBe(0)
  expect(rig.events).toEqual(['attach'])
  expect(rig.lines.filter((l) => !l.startsWith('debug'))).toEqual([expect.stringMatching(/VMM attached/)])
  await expect(
    listenVfioUser({ path: rig.path, memory: new GuestMemory(), function: new ToyFunction(), log: SILENT }),
  ).rejects.toThrow(/in use/)
  vmm.close()
  await rig.detached()
})

test('silent connections are bounded', async () => {
  const silent = Array.from({ length: 8 }, () => connectUnix(rig.path))
  await until(() => rig.lines.filter((l) => l.startsWith('warn')).length === 4, 'four to be refused')
  silent.forEach(closeFd)
  await until(() => openFds().length === before.length, 'the rest to be closed')
  const vmm = await FakeVmm.attach(rig.path)
  vmm.close()
  await rig.detached()
})

test('closing hangs up, removes the socket and everything that was open', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const waiting = connectUnix(rig.path)
  const eventfd = createEventfd()
  await vmm.setIrqs(0x24, 2, 0, 1, [eventfd])
  rig.server.close()
  rig.server.close()
  expect(existsSync(rig.path)).toBe(false)
  expect(rig.events).toEqual(['attach', 'detach: the device was closed'])
  expect(rig.toy.log).toEqual(['irq', 'no irq', 'reset'])
  expect(await vmm.next()).toBeUndefined()
  closeFd(eventfd)
  closeFd(waiting)
  vmm.close()
  expect(openFds().length).toBeLessThan(before.length)
})

test('closing from inside a register write is fine', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  rig.toy.onWrite = () => rig.server.close()
  await vmm.send(concat(message(1, 10, access(0, 0, 4, u32(1))), message(2, 9, access(0, 0, 4))))
  expect(await vmm.next()).toBeUndefined()
  expect(rig.toy.writes).toBe(1)
  vmm.close()
})

test('closing from onAttach is fine', async () => {
  const toy = new ToyFunction()
  rig.server.close()
  const server = await listenVfioUser({
    path: rig.path,
    memory: new GuestMemory(),
    function: toy,
    log: SILENT,
    onAttach: () => server.close(),
  })
  await expect(FakeVmm.attach(rig.path)).rejects.toThrow(/hung up/)
  expect(toy.log).toEqual(['irq', 'no irq', 'reset'])
})

test('a device that throws costs an errno and one line, not the process', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  rig.toy.failure = new Error('boom')
  expect(await vmm.errno(9, access(0, 0, 4))).toBe(5)
  expect(await vmm.errno(10, access(0, 0, 4, u32(1)))).toBe(5)
  rig.toy.failure = undefined
  expect(await vmm.errno(9, access(0, 0, 4))).toBe(0)
  expect(rig.lines.filter((l) => l.startsWith('error'))).toEqual(['error: the device failed at a request: boom'])
  vmm.close()
})

test('callbacks that throw are logged and change nothing', async () => {
  rig.server.close()
  const lines: string[] = []
  const server = await listenVfioUser({
    path: rig.path,
    memory: new GuestMemory(),
    function: new ToyFunction(),
    log: { ...SILENT, error: (line) => void lines.push(line) },
    onAttach: fail,
    onDetach: fail,
  })
  const vmm = await FakeVmm.attach(rig.path)
  vmm.close()
  await until(() => !server.attached, 'the end')
  expect(lines).toEqual(['onAttach: mistake', 'onDetach: mistake'])
  server.close()
})

test('a path that cannot be listened at rejects with the house error', async () => {
  const options = { memory: new GuestMemory(), function: new ToyFunction(), log: SILENT }
  const failed = listenVfioUser({ ...options, path: '/no/such/folder/s' })
  await expect(failed).rejects.toBeInstanceOf(VmchannelError)
  await expect(failed).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CHARDEV' })
})

test('with a keeper too, a VMM that goes in the middle of a message is detached', async () => {
  const keep = { store: new MemoryStore(), notes: new VmmNotes(new Ledger()) }
  const kept = await openRig(new ToyFunction(), { keep })
  for (const rest of [4, 20]) {
    const vmm = await FakeVmm.attach(kept.path)
    await vmm.send(message(1, 9, access(7, 0, 4)).subarray(0, rest))
    await turn()
    expect(kept.server.attached).toBe(true)
    vmm.close()
    await kept.detached()
    expect(kept.events.pop()).toBe('detach: closed by the VMM within a message')
  }
  kept.end()
})
