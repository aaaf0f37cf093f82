/**
 * A VMM that sends anything: messages of every kind with any fields, split and truncated, with descriptors that are
 * none of ours, too many, or in the wrong place. It is answered or hung up on; nothing throws, no descriptor leaks, and
 * the next VMM finds a device that works.
 */

import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { listenVfioUser } from '../src/device/attach/vfio-user/server.ts'
import { ConsoleDevice } from '../src/device/console.ts'
import { VirtioPci } from '../src/device/pci/virtio-pci.ts'
import { createEventfd } from '../src/ffi/eventfd.ts'
import { createMemfd } from '../src/ffi/mmap.ts'
import { GuestMemory } from '../src/mem/guest-memory.ts'
import { concat, FakeVmm, message, turn, u32, u64 } from '../test/support/fake-vmm.ts'
import { Random } from './random.ts'
import type { FuzzSession, FuzzTarget } from './target.ts'

const MESSAGES = 30
const RAM = 1 << 20
/** Commands of the protocol, and numbers that are none. */
const COMMANDS = [1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 10, 11, 12, 13, 14, 19, 0, 200, 0xffff]
const SIZES = [0, 1, 4, 16, 20, 24, 32, 4096, RAM, RAM + 4096, 0x7fff_ffff, 0xffff_ffff]

async function start(): Promise<FuzzSession> {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-fuzz-'))
  const path = join(folder, 's.sock')
  const errors: string[] = []
  const log = { error: (text: string) => void errors.push(text), warn() {}, info() {}, debug() {} }
  const memory = new GuestMemory()
  const device = new ConsoleDevice({ maxPorts: 4, defer: setImmediate })
  const server = await listenVfioUser({
    path,
    memory,
    function: new VirtioPci(device, memory, { vectors: device.queueCount + 1 }),
    log,
  })
  const eventfd = createEventfd()
  const ram = createMemfd('fuzz', true)
  ftruncateSync(ram, RAM)
  const small = createMemfd('small', true)
  ftruncateSync(small, 100)
  const fds = [eventfd, ram, small]

  const settled = async (): Promise<void> => {
    for (let i = 0; server.attached; i++) {
      assert.ok(i < 200_000, 'the server does not notice that the VMM is gone')
      await turn()
    }
  }

  return {
    async episode(seed) {
      const r = new Random(seed)
      const before = readdirSync('/proc/self/fd').length
      errors.length = 0
      const vmm = r.chance(90) ? await FakeVmm.attach(path) : new FakeVmm(path)
      try {
        for (let i = 0; i < MESSAGES && !r.ended; i++) {
          r.step()
          const { bytes, with: given } = randomMessage(r, fds)
          const cut = r.chance(15) ? r.below(bytes.length + 1) : bytes.length
          if (cut > 0) await vmm.send(bytes.subarray(0, cut), given)
          if (r.chance(30)) await turn()
          // The rest later, as a socket may deliver it; or never.
          if (cut < bytes.length && r.chance(80)) await vmm.send(bytes.subarray(cut))
          if (vmm.gone) break
        }
      } catch (error) {
        if (!(error instanceof Error) || !error.message.includes('hung up')) throw error
      }
      await turn()
      vmm.close()
      await settled()
      assert.deepEqual(
        errors.filter((text) => text.startsWith('the device failed')),
        [],
      )
      assert.equal(memory.regions.length, 0, 'memory of a VMM that is gone')
      const next = await FakeVmm.attach(path)
      assert.equal(await next.mapMemory(0, RAM, ram), 0, 'the next VMM cannot map memory')
      assert.equal(
        (await next.request(4, concat(u32(16), new Uint8Array(12)))).errno,
        0,
        'the next VMM gets no device info',
      )
      next.close()
      await settled()
      // A connection that never was a VMM's ends some turns later, on a busy machine some more.
      const descriptors = (): number => readdirSync('/proc/self/fd').length
      for (let i = 0; i < 1000 && descriptors() !== before; i++) await turn()
      assert.equal(descriptors(), before, 'descriptors leak')
      return MESSAGES
    },
    close() {
      server.close()
      device.close()
      for (const fd of fds) closeSync(fd)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export function randomMessage(r: Random, fds: readonly number[]): { bytes: Buffer; with: number[] } {
  const command = r.chance(95) ? r.pick(COMMANDS) : r.word() & 0xffff
  const number = (): number => (r.chance(70) ? r.pick(SIZES) : r.chance(50) ? r.below(64) : r.word())
  const address = (): number => r.pick([0, 4096, RAM, RAM - 1, 0xfee0_0000, 2 ** 40, number()])
  const payload = r.chance(80) ? body(command, r, number, address) : r.bytes(r.below(r.chance(90) ? 64 : 5000))
  const flags = r.chance(80) ? r.pick([0, 0, 0x10]) : r.word()
  const bytes = message(r.word() & 0xffff, command, payload, flags)
  if (r.chance(10)) bytes.writeUInt32LE(r.pick(SIZES), 4)
  const count = r.chance(70) ? (command === 2 || command === 8 ? 1 : 0) : r.below(20)
  return { bytes, with: Array.from({ length: count }, () => r.pick(fds)) }
}

/** The payload of a command with every field in its place and any value in it. */
function body(command: number, r: Random, number: () => number, address: () => number): Uint8Array {
  switch (command) {
    case 1:
      return concat(
        u32(r.below(3)),
        Buffer.from(
          r.pick([
            '{"capabilities":{"max_msg_fds":8}}\0',
            '{',
            '',
            '[]\0',
            'null\0',
            '{"capabilities":{"max_msg_fds":-1,"max_data_xfer_size":1e99}}\0',
          ]),
        ),
      )
    case 2:
      return concat(u32(r.chance(90) ? 32 : number()), u32(r.below(8)), u64(address()), u64(address()), u64(address()))
    case 3:
      return concat(u32(r.chance(90) ? 24 : number()), u32(r.below(4)), u64(address()), u64(address()))
    case 5:
      return concat(u32(32), u32(number()), u32(r.below(12)), u32(0), u64(number()), u64(number()))
    case 7:
      return concat(u32(16), u32(0), u32(r.below(8)), u32(0))
    case 8:
      return concat(
        u32(r.chance(90) ? 20 : number()),
        u32(r.below(64)),
        u32(r.below(6)),
        u32(r.below(12)),
        u32(r.chance(80) ? r.below(12) : number()),
        r.bytes(r.below(16)),
      )
    case 9:
    case 10: {
      const len = r.chance(80) ? r.pick([1, 2, 4, 8]) : number()
      const data = command === 10 ? r.bytes(r.chance(90) ? Math.min(len, 64) : r.below(64)) : new Uint8Array(0)
      return concat(
        u64(r.pick([r.below(256), r.below(0x4000), number()])),
        u32(r.pick([7, 4, 1, r.below(12)])),
        u32(len),
        data,
      )
    }
    default:
      return r.bytes(r.below(48))
  }
}

export const VFIO_USER: FuzzTarget = {
  name: 'vfio-user',
  title: 'a VMM that sends anything, with any descriptors',
  start,
}
