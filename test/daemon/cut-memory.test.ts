/** A VMM that cuts its guest's memory short loses its device; the process and its other VM go on. Needs the build. */
import { closeSync, ftruncateSync, writeSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { until } from '../../lab/wait.ts'
import { createMemfd } from '../../src/ffi/mmap.ts'
import { access, concat, FakeVmm, message, u32, u64 } from '../support/fake-vmm.ts'
import { UNGUARDED } from '../support/unguarded.ts'
import { TestDevice } from './device.ts'

const RAM = 1 << 20
const CONFIG = 7
const BAR = 4
const NOTIFY = 0x3000
const DMA_READ = 11
const POSTED = 0x10
const REPLY = 1
/** What lies at address 0. */
const PAGE = Buffer.alloc(4096, 'guest')
const QUEUE = 3 // the driver's control messages
const RING = RAM - 0x3000

let device: TestDevice
beforeAll(async () => {
  device = await TestDevice.start({ vms: [{ ports: [] }, { ports: [] }], exitWith: 'never', logLevel: 'warn' })
})
afterAll(() => device.close())

/** A guest with one queue, as far as the device looks before it takes a buffer. */
async function start(socket: string): Promise<{ vmm: FakeVmm; fd: number; status(): Promise<number> }> {
  const vmm = await FakeVmm.attach(socket)
  const fd = createMemfd('guest', false)
  ftruncateSync(fd, RAM)
  writeSync(fd, PAGE, 0, PAGE.length, 0)
  expect(await vmm.mapMemory(0, RAM, fd)).toBe(0)
  const put = async (offset: number, data: Uint8Array, region = BAR): Promise<void> =>
    expect(await vmm.errno(10, access(region, offset, data.length, data))).toBe(0)
  // Memory space and bus master. Now the device looks whether it has the same memory as the VMM.
  await vmm.send(message(vmm.nextId++, 10, access(CONFIG, 4, 2, Uint8Array.of(6, 0)), POSTED))
  const ask = await vmm.next()
  expect(ask?.command).toBe(DMA_READ)
  await vmm.send(message(ask!.id, DMA_READ, concat(u64(0), u64(PAGE.length), PAGE), REPLY))
  for (const status of [0, 1, 3]) await put(0x14, Uint8Array.of(status))
  for (const [select, bits] of [
    [0, 2],
    [1, 1],
  ] as const) {
    // MULTIPORT, VERSION_1
    await put(0x08, u32(select))
    await put(0x0c, u32(bits))
  }
  await put(0x14, Uint8Array.of(11))
  await put(0x16, Uint8Array.of(QUEUE, 0))
  await put(0x18, Uint8Array.of(8, 0))
  for (const [register, address] of [
    [0x20, RING],
    [0x28, RING + 0x1000],
    [0x30, RING + 0x2000],
  ] as const) {
    await put(register, u32(address))
    await put(register + 4, u32(0))
  }
  await put(0x1c, Uint8Array.of(1, 0))
  await put(0x14, Uint8Array.of(15))
  const status = async (): Promise<number> => (await vmm.request(9, access(BAR, 0x14, 1))).payload[16]!
  return { vmm, fd, status }
}

const notify = access(BAR, NOTIFY + 4 * QUEUE, 2, u64(QUEUE).subarray(0, 2))

it('memory that is cut short costs its VM the device, and nobody else anything', async ({ skip }) => {
  skip(process.arch !== 'x64', UNGUARDED)
  const [one, two] = device.started.vms
  const [bad, good] = [await start(one!.socket), await start(two!.socket)]
  expect(await bad.status()).toBe(15)
  ftruncateSync(bad.fd, 0)
  await bad.vmm.request(10, notify).catch(() => undefined)
  await until(() => bad.vmm.gone, 'its connection ends')
  expect(device.log).toMatch(/error.*the file behind guest memory was cut short/)

  // The other one still works, and the first socket takes the next VMM.
  expect((await good.vmm.request(10, notify)).errno).toBe(0)
  expect(await good.status()).toBe(15)
  const again = await start(one!.socket)
  expect((await again.vmm.request(10, notify)).errno).toBe(0)
  expect(await again.status()).toBe(15)
  for (const { vmm, fd } of [bad, good, again]) {
    vmm.close()
    closeSync(fd)
  }
})
