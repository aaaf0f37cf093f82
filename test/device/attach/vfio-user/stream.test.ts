import { afterEach, beforeEach, expect, test } from 'vitest'
import { createEventfd, drainEventfd } from '../../../../src/ffi/eventfd.ts'
import { closeFd } from '../../../../src/ffi/libc.ts'
import { access, concat, FakeVmm, message, turn, u32, u64 } from '../../../support/fake-vmm.ts'
import { openFds, openRig, type Rig } from './rig.ts'
import { ToyFunction } from './toy-function.ts'

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

test('a VMM that stops reading is not read from either, and goes on where it was', async () => {
  const toy = new ToyFunction(1 << 20)
  const wide = await openRig(toy)
  toy.bar.forEach((_, i) => (toy.bar[i] = i >> 8))
  const vmm = await FakeVmm.attach(wide.path)
  vmm.reading(false)
  // Replies that the socket takes in parts.
  const len = 150_001
  const offset = (id: number): number => (id * 4099) % (toy.bar.length - len)
  let sent = 0
  for (let idle = 0; idle < 50;) {
    if (vmm.trySend(message(sent & 0xffff, 9, access(0, offset(sent), len))) > 0) {
      sent++
      idle = 0
    } else {
      idle++
      await turn()
    }
  }
  const handled = wide.server.counters!.requests
  expect(handled).toBeLessThan(sent)
  for (let i = 0; i < 20; i++) await turn()
  expect(wide.server.counters!.requests).toBe(handled)
  expect(await wide.server.checkCoherent(0, 4)).toBe('unknown') // nothing can be asked now
  vmm.reading(true)
  for (let id = 0; id < sent; id++) {
    const reply = (await vmm.next())!
    expect([reply.id, reply.errno, reply.payload.length]).toEqual([id, 0, 16 + len])
    expect(reply.payload.subarray(16).equals(toy.bar.subarray(offset(id), offset(id) + len))).toBe(true)
  }
  // and then sleeps: no waiting for a socket that is ready all the time
  const before = process.cpuUsage()
  await new Promise((resolve) => setTimeout(resolve, 300))
  const { user, system } = process.cpuUsage(before)
  expect(user + system).toBeLessThan(150_000)
  vmm.close()
  await wide.detached()
  wide.end()
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

test('descriptors stay with their message when the receive buffer wraps', async () => {
  const vmm = await FakeVmm.attach(rig.path)
  const eventfd = createEventfd()
  const long = (id: number): Buffer =>
    message(id, 8, concat(u32(20), u32(0x24), u32(2), u32(id % 4), u32(1), Buffer.alloc(20_000)))
  // Always half a message in the buffer: it is never empty, and wraps every 55 messages.
  await vmm.send(long(0).subarray(0, 9000), [eventfd])
  for (let id = 0; id < 200; id++) {
    await turn()
    await vmm.send(long(id).subarray(9000))
    await vmm.send(long(id + 1).subarray(0, 9000), [eventfd])
    expect(await vmm.next()).toMatchObject({ id, command: 8, errno: 0 })
    signalled(id)
  }
  function signalled(id: number): void {
    rig.toy.irq!.msix(id % 4)
    expect(drainEventfd(eventfd)).toBe(1)
  }
  closeFd(eventfd)
  vmm.close()
  await rig.detached()
  expect(openFds()).toEqual(before)
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
