/**
 * Two VMs of one process, each with its VMM, and strangers at their sockets: connections that say nothing, VERSION,
 * anything, in pieces, and leave; second starts at the same path. What the VMMs have mapped stays mapped, they are
 * answered, and nobody else is.
 */

import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { listenVfioUser, type VfioUserServer } from '../src/device/attach/vfio-user/server.ts'
import { ConsoleDevice } from '../src/device/console.ts'
import { VirtioPci } from '../src/device/pci/virtio-pci.ts'
import { VmchannelError } from '../src/errors.ts'
import { createEventfd } from '../src/ffi/eventfd.ts'
import { createMemfd } from '../src/ffi/mmap.ts'
import { SILENT } from '../src/log.ts'
import { GuestMemory } from '../src/mem/guest-memory.ts'
import { access, FakeVmm, turn } from '../test/support/fake-vmm.ts'
import { Random } from './random.ts'
import type { FuzzSession, FuzzTarget } from './target.ts'
import { randomMessage } from './vfio-user.ts'

const STEPS = 40
const RAM = 1 << 20
const PLACES = 6
const STRANGERS = 6
const CONFIG_REGION = 7
const VIRTIO = 0x1af4

interface Vm {
  path: string
  memory: GuestMemory
  server: VfioUserServer
  device: ConsoleDevice
}

async function makeVm(path: string): Promise<Vm> {
  const memory = new GuestMemory()
  const device = new ConsoleDevice({ maxPorts: 4, defer: setImmediate })
  const server = await listenVfioUser({ path, memory, function: new VirtioPci(device, memory), log: SILENT })
  return { path, memory, server, device }
}

/** A VMM that keeps to the rules, and what it has mapped. */
class Owner {
  readonly vm: Vm
  readonly #vmm: FakeVmm
  readonly #ram: number
  readonly #mapped = new Set<number>()

  private constructor(vm: Vm, vmm: FakeVmm, ram: number) {
    this.vm = vm
    this.#vmm = vmm
    this.#ram = ram
  }

  static async attach(vm: Vm, ram: number): Promise<Owner> {
    return new Owner(vm, await FakeVmm.attach(vm.path), ram)
  }

  async act(r: Random): Promise<void> {
    const place = r.below(PLACES)
    if (r.chance(60)) {
      if (this.#mapped.delete(place)) assert.equal(await this.#vmm.unmapMemory(place * RAM, RAM), 0, 'UNMAP is refused')
      else {
        this.#mapped.add(place)
        assert.equal(await this.#vmm.mapMemory(place * RAM, RAM, this.#ram), 0, 'MAP is refused')
      }
    }
    const { errno, payload } = await this.#vmm.request(9, access(CONFIG_REGION, 0, 2))
    assert.equal(errno, 0, 'the VMM is refused a register')
    assert.equal(payload.readUInt16LE(payload.length - 2), VIRTIO)
  }

  check(): void {
    assert.ok(this.vm.server.attached && !this.#vmm.gone, 'the VMM lost its device')
    const there = this.vm.memory.regions.map(({ base }) => base / RAM)
    assert.deepEqual(new Set(there), this.#mapped, "the VMM's memory map has changed")
  }

  close(): void {
    this.#vmm.close()
  }
}

async function start(): Promise<FuzzSession> {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-fuzz-'))
  const vms = [await makeVm(join(folder, 'a.sock')), await makeVm(join(folder, 'b.sock'))]
  const ram = createMemfd('fuzz', true)
  ftruncateSync(ram, RAM)
  const eventfd = createEventfd()
  return {
    async episode(seed) {
      const r = new Random(seed)
      const before = readdirSync('/proc/self/fd').length
      const owners: Owner[] = []
      const strangers: FakeVmm[] = []
      try {
        for (const vm of vms) owners.push(await Owner.attach(vm, ram))
        for (const owner of owners) await owner.act(r)
        for (let i = 0; i < STEPS && !r.ended; i++) {
          r.step()
          await step(r, owners, strangers, [ram, eventfd])
          for (const owner of owners) owner.check()
        }
      } finally {
        for (const stranger of strangers) stranger.close()
        for (const owner of owners) owner.close()
        for (const { server } of vms) for (let i = 0; server.attached && i < 10_000; i++) await turn()
        await turn()
      }
      for (const { memory } of vms) assert.equal(memory.regions.length, 0, 'memory of a VMM that is gone')
      assert.equal(readdirSync('/proc/self/fd').length, before, 'descriptors leak')
      return STEPS
    },
    close() {
      for (const { server, device } of vms) {
        server.close()
        device.close()
      }
      for (const fd of [ram, eventfd]) closeSync(fd)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function step(r: Random, owners: readonly Owner[], strangers: FakeVmm[], fds: readonly number[]): Promise<void> {
  const owner = r.pick(owners)
  const { path } = owner.vm
  switch (r.below(8)) {
    case 0:
    case 1:
      return owner.act(r)
    case 2:
      if (strangers.length < STRANGERS) strangers.push(new FakeVmm(path))
      break
    case 3: {
      const stranger = r.pick(strangers)
      if (!stranger || stranger.gone) break
      // One that has begun another message is not answered.
      const reply = orGone(() => stranger.version())
      const answered = await Promise.race([reply, turn()])
      if (answered) assert.notEqual(answered.errno, 0, 'a second VMM was given the device')
      break
    }
    case 4: {
      const stranger = r.pick(strangers)
      if (!stranger || stranger.gone) break
      const { bytes, with: given } = randomMessage(r, fds)
      const cut = r.chance(20) ? bytes.subarray(0, 1 + r.below(bytes.length)) : bytes
      await orGone(() => stranger.send(cut, given))
      break
    }
    case 5: {
      const [stranger] = strangers.splice(r.below(Math.max(1, strangers.length)), 1)
      stranger?.close()
      break
    }
    case 6: {
      if (r.chance(50)) break
      // The same VM started a second time, by mistake.
      const memory = new GuestMemory()
      const device = new ConsoleDevice({ maxPorts: 4 })
      const second = listenVfioUser({ path, memory, function: new VirtioPci(device, memory), log: SILENT })
      await assert.rejects(second, VmchannelError, 'two servers at one path')
      device.close()
      break
    }
    default:
  }
  await turn()
}

/** What a peer that was hung up on meets, perhaps with the refusal of an earlier message in its socket. */
async function orGone<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    // Or an answer to what it sent before.
    if (!(error instanceof Error) || !/hung up|a reply to something else/.test(error.message)) throw error
    return undefined
  }
}

export const SESSIONS: FuzzTarget = {
  name: 'sessions',
  title: 'strangers at the sockets of VMs that have their VMM',
  start,
}
