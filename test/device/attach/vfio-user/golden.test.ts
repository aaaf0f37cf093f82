import { closeSync, ftruncateSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createEventfd } from '../../../../src/ffi/eventfd.ts'
import { createMemfd, sealMemfd } from '../../../../src/ffi/mmap.ts'
import { openRig, type Rig } from './rig.ts'
import { FakeVmm, message, type FakeMessage } from '../../../support/fake-vmm.ts'

const MIB = 1 << 20

let rig: Rig
beforeEach(async () => void (rig = await openRig()))
afterEach(() => rig.end())

interface Step {
  request: Buffer
  fds: number
  reply: string
}

function recorded(): Step[] {
  const text = readFileSync(join(import.meta.dirname, 'fixtures/qemu-11.1.3-q35.txt'), 'latin1')
  const lines = text.split('\n').filter((line) => /^[<>] /.test(line))
  const steps: Step[] = []
  for (let i = 0; i < lines.length; i += 2) {
    const [, hex, fds] = lines[i]!.split(' ')
    steps.push({
      request: Buffer.from(hex!, 'hex'),
      fds: fds ? Number(fds.slice(4)) : 0,
      reply: lines[i + 1]!.slice(2),
    })
  }
  return steps
}

const hexOf = (m: FakeMessage): string => {
  const bytes = message(m.id, m.command, m.payload, m.flags)
  bytes.writeUInt32LE(m.errno, 12)
  return bytes.toString('hex')
}

test('what QEMU 11.1.3 sends while it starts is answered byte for byte as when it was recorded', async () => {
  const ram = createMemfd('ram', true)
  ftruncateSync(ram, 256 * MIB)
  sealMemfd(ram)
  const eventfd = createEventfd()
  const vmm = new FakeVmm(rig.path)
  const steps = recorded()
  expect(steps).toHaveLength(101)
  for (const { request, fds, reply } of steps) {
    const command = request.readUInt16LE(2)
    await vmm.send(request, fds === 0 ? [] : [command === 2 ? ram : eventfd])
    const answer = await vmm.next()
    expect(answer && hexOf(answer)).toBe(reply)
    expect(answer!.fds).toHaveLength(0)
  }
  // The map after the firmware has shadowed itself; read-only firmware is not RAM of ours.
  expect(rig.memory.regions.reduce((sum, r) => sum + r.size, 0)).toBeGreaterThan(255 * MIB)
  expect(new Set(rig.memory.regions.map((r) => r.bytes.buffer)).size).toBe(1)
  expect(rig.toy.log).toEqual(['irq', 'reset'])
  expect(rig.server.counters).toEqual({ requests: 101, refused: 1, strayReplies: 0 })
  expect(rig.unshared).toEqual([])
  vmm.close()
  await rig.detached()
  expect(rig.memory.regions).toEqual([])
  closeSync(ram)
  closeSync(eventfd)
})

test('the same in one go, as a stream of requests that never waits, gives the same replies', async () => {
  const ram = createMemfd('ram', true)
  ftruncateSync(ram, 256 * MIB)
  const eventfd = createEventfd()
  const vmm = new FakeVmm(rig.path)
  const steps = recorded()
  for (const { request, fds } of steps)
    await vmm.send(request, fds === 0 ? [] : [request.readUInt16LE(2) === 2 ? ram : eventfd])
  for (const { reply } of steps) expect(hexOf((await vmm.next())!)).toBe(reply)
  vmm.close()
  closeSync(ram)
  closeSync(eventfd)
})

test('offers exactly what QEMU takes: at most 214 bytes, NUL at the end, no write_multiple', async () => {
  const vmm = new FakeVmm(rig.path)
  const { payload } = await vmm.version()
  expect(payload.length + 16).toBeLessThanOrEqual(214)
  expect(payload.subarray(0, 4)).toEqual(Buffer.alloc(4))
  expect(payload.at(-1)).toBe(0)
  expect(JSON.parse(payload.subarray(4, -1).toString())).toEqual({
    capabilities: { max_msg_fds: 16, max_data_xfer_size: 1048576 },
  })
  vmm.close()
})
