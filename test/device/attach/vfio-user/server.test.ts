import { existsSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { VmchannelError } from '../../../../src/errors.ts'
import { listenVfioUser } from '../../../../src/device/attach/vfio-user/server.ts'
import { createEventfd } from '../../../../src/ffi/eventfd.ts'
import { closeFd } from '../../../../src/ffi/libc.ts'
import { connectUnix } from '../../../../src/ffi/unix-listen.ts'
import { SILENT } from '../../../../src/log.ts'
import { GuestMemory } from '../../../../src/mem/guest-memory.ts'
import { access, concat, FakeVmm, message, turn, u32, u64 } from './fake-vmm.ts'
import { openFds, openRig, until, type Rig } from './rig.ts'
import { ToyFunction } from './toy-function.ts'

const EBUSY = 16

function fail(): never {
  throw new Error('mistake')
}

/** SET_IRQS for one MSI-X vector; its descriptor goes with the first byte. */
function set(id: number, vector: number): Buffer {
  return message(id, 8, concat(u32(20), u32(0x24), u32(2), u32(vector), u32(1)))
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
  await expect(failed).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_NOT_FOUND' })
})

test('a VMM that stops reading is not read from either, and goes on where it was', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  vmm.reading(false)
  const count = 3000
  let sent = 0
  const big = access(0, 0, 0x3000)
  // As many reads of 12 KiB as the socket takes; the server is stuck with its replies soon.
  for (let idle = 0; sent < count && idle < 200;) {
    if (vmm.trySend(message(sent & 0xffff, 9, big)) > 0) {
      sent++
      idle = 0
    } else {
      idle++
      await turn()
    }
  }
  expect(sent).toBeLessThan(count)
  const handled = rig.server.counters!.requests
  for (let i = 0; i < 20; i++) await turn()
  expect(rig.server.counters!.requests).toBe(handled)
  expect(handled).toBeLessThan(sent)
  vmm.reading(true)
  for (let id = 0; id < sent; id++) expect((await vmm.next())!).toMatchObject({ id, command: 9, errno: 0 })
  vmm.close()
})

test('a VMM that vanishes while a reply is stuck is noticed', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  vmm.reading(false)
  for (let i = 0; i < 100; i++) {
    vmm.trySend(message(i, 9, access(0, 0, 0x3000)))
    await turn()
  }
  const handled = rig.server.counters!.requests
  expect(handled).toBeLessThan(100)
  vmm.close()
  await rig.detached()
  expect(openFds()).toEqual(before)
})

test('a flood of notifies leaves turns to others', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const notify = message(1, 10, access(0, 0x3000, 2, Buffer.alloc(2)), 0x10)
  const burst = Buffer.concat(Array.from({ length: 500 }, () => notify))
  let turns = 0
  let most = 0
  let last = 0
  let going = true
  const count = (): void => {
    most = Math.max(most, rig.toy.writes - last)
    last = rig.toy.writes
    turns++
    if (going) setImmediate(count)
  }
  setImmediate(count)
  for (let i = 0; i < 100; i++) await vmm.send(burst)
  await until(() => rig.toy.writes === 50_000, 'all notifies')
  going = false
  expect(most).toBeLessThanOrEqual(2 * 4096)
  expect(turns).toBeGreaterThan(5)
  vmm.close()
})

test('descriptors go to the message they were sent with, however the stream is cut', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const eventfds = [createEventfd(), createEventfd()] as const
  const notify = message(9, 10, access(0, 0, 2, Buffer.alloc(2)), 0x10)
  const open = openFds().length

  // one read brings: a notify, and the message with the descriptor
  await vmm.send(notify)
  await vmm.send(set(1, 0), [eventfds[0]])
  expect(await vmm.next()).toMatchObject({ id: 1, errno: 0 })
  // the message comes in pieces: the descriptor is with the first byte
  const bytes = set(2, 1)
  await vmm.send(bytes.subarray(0, 3), [eventfds[1]])
  await turn()
  await vmm.send(bytes.subarray(3, 20))
  await turn()
  await vmm.send(concat(bytes.subarray(20), notify))
  expect(await vmm.next()).toMatchObject({ id: 2, errno: 0 })
  expect(openFds().length).toBe(open + 2)
  // the end of one message and the start of the next with a descriptor, in one send
  const [a, b] = [set(3, 2), set(4, 3)]
  await vmm.send(a.subarray(0, 30), [eventfds[0]])
  await turn()
  await vmm.send(concat(a.subarray(30), b), [eventfds[1]])
  expect(await vmm.next()).toMatchObject({ id: 3, errno: 0 })
  expect(await vmm.next()).toMatchObject({ id: 4, errno: 0 })
  expect(openFds().length).toBe(open + 4)
  eventfds.forEach(closeFd)
  vmm.close()
  await rig.detached()
  expect(openFds()).toEqual(before)
})

test('messages of the greatest length pass, in any cut', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const whole = message(7, 10, access(0, 0, 0x4000, Buffer.alloc(0x4000, 5)))
  for (const piece of [1, 7, 1000, 40_000]) {
    rig.toy.bar.fill(0)
    for (let at = 0; at < whole.length;) {
      const len = at < 32 ? piece : 9000
      await vmm.send(whole.subarray(at, at + len))
      await turn()
      at += len
    }
    expect(await vmm.next()).toMatchObject({ id: 7, errno: 0 })
    expect(rig.toy.bar.every((byte) => byte === 5)).toBe(true)
  }
  // 1 MiB is what was agreed on; this device has no register there
  const full = message(8, 10, access(0, 0, 1 << 20, Buffer.alloc(1 << 20)))
  for (let at = 0; at < full.length; at += 60_000) await vmm.send(full.subarray(at, at + 60_000))
  expect(await vmm.next()).toMatchObject({ id: 8, errno: 22 })
  expect((await vmm.request(9, access(7, 0, 4))).errno).toBe(0)
  vmm.close()
})

test('u64 fields are read in full', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  expect(await vmm.errno(9, concat(u64(0x1_0000_0000), u32(0), u32(4)))).toBe(22)
  vmm.close()
})
