/**
 * Random drivers, from clumsy to malicious, on our device: rings, descriptors, indirect tables, control messages,
 * registers, a memory map that changes. Whatever they do: no call throws, every call ends, what is held stays bounded,
 * and after a reset the device works as if nothing had been.
 */

import assert from 'node:assert/strict'
import type { PortPolicy } from '../src/device/port-settings.ts'
import { DeviceQueue } from '../src/ring/device-queue.ts'
import { encodeControl, receiveqOf, transmitqOf } from '../src/spec/console.ts'
import { settle } from '../test/support/pair.ts'
import type { MemoryChardev } from '../test/support/memory-chardev.ts'
import { Random, type Seed } from './random.ts'
import type { FuzzTarget } from './target.ts'
import { BASIC, RawDriver } from '../test/support/raw-driver.ts'
import { writeDesc, type RawQueue } from '../test/support/raw-queue.ts'

const OPS = 250
/** Looks at a ring that one call may make: far more than any honest one, far fewer than a hang. */
const LOOKS_MAX = 20_000
/**
 * Descriptors that one call may look at: what a device has in a turn of the event loop (device/work.ts), and some
 * turns.
 */
const LOOKED_MAX = 1 << 20
/** Descriptors of the longest chain, in a table that all chains share. */
const TABLE = 1023
const BUFFER = 4096
const PORTS = 4

let looks = 0
let looked = 0
/** A driver on another processor: makes its whole ring available again each time the device looks at it. */
let racing: RawQueue | undefined
// oxlint-disable-next-line typescript/unbound-method -- applied to its object below
const gather = DeviceQueue.prototype.gather

function watch(): void {
  DeviceQueue.prototype.gather = function (this: DeviceQueue, ...args) {
    if (++looks > LOOKS_MAX) throw new Error('one call looks at the rings for ever')
    if (racing?.index === this.index) racing.setAvailIdx(racing.usedIdx + this.staged + racing.size)
    const total = gather.apply(this, args)
    looked += args[0].list.looked
    if (looked > LOOKED_MAX) throw new Error(`one call looks at ${looked} descriptors`)
    return total
  }
}

class Episode {
  readonly raw: RawDriver
  readonly random: Random
  readonly hosts = new Map<number, MemoryChardev>()
  #removed: RawDriver['memory']['regions'][number][] = []
  #table: RawDriver['memory']['regions'][number] | undefined
  trace: string[] = []

  constructor(seed: Seed) {
    this.random = new Random(seed)
    const r = this.random
    this.raw = new RawDriver({
      device: { maxPorts: PORTS, queueSize: r.pick([2, 8, 128]), controlQueueSize: r.pick([2, 16]) },
      vectors: r.pick([0, 1, 2, 11]),
    })
  }

  async addPort(id: number): Promise<void> {
    if (this.raw.device.port(id)) return
    const policy: PortPolicy = this.random.pick(['block', 'drop-oldest', 'drop-newest', 'discard'])
    const settings = { id, policy, buffer: BUFFER, console: id === 0, name: `port.${id}` }
    const onClose = this.random.pick([undefined, 'discard', 'keep', 'drain'] as const)
    const { chardev } = await this.raw.host({ ...settings, onClose, drainMs: 1 }, this.random.chance(50))
    this.hosts.set(id, chardev)
  }

  /** An address that means something: in a ring, in a page, at an edge, or nowhere. */
  address(): number {
    const r = this.random
    const region = r.pick([...this.raw.memory.regions, ...this.#removed])
    switch (r.below(8)) {
      case 0:
        return r.word() * 2 ** r.below(32)
      case 1:
        return region ? region.base + region.size - r.below(16) : 0
      case 2:
        return r.pick([0, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64 - 4096, 0xfebf1000])
      default:
        return region ? region.base + (r.below(region.size) & (r.chance(80) ? ~15 : ~0)) : 0
    }
  }

  len(): number {
    const r = this.random
    return r.pick([0, 1, 7, 8, 12, 16, 32, 4096, 4097, 65536, 0x7fffffff, 0xffffffff, r.below(5000), r.below(100) * 16])
  }

  desc(view: DataView, at: number, size: number): void {
    const r = this.random
    const flags = r.chance(60) ? r.pick([0, 2]) : r.below(8)
    writeDesc(view, at, this.address(), this.len(), flags, r.chance(90) ? r.below(size) : r.below(65536))
  }

  /** Every chain of a queue is as long as can be, and all lie in one table: of use for the queue, or not, or empty. */
  shareTable(queue: RawQueue): void {
    const r = this.random
    this.#table ??= this.raw.machine.allocate(TABLE * 16)
    const { base, bytes } = this.#table
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const [len, flags] = [r.pick([0, 1, 64]), r.pick([0, 2])]
    for (let i = 0; i < TABLE; i++) {
      const more = i + 1 < TABLE
      writeDesc(view, i * 16, queue.pageAddress(0), len, flags | (more ? 1 : 0), more ? i + 1 : 0)
    }
    for (let i = 0; i < queue.size; i++) {
      queue.desc(i, base, TABLE * 16, 4)
      queue.setAvailRing(i, i)
    }
    // Behind all that is useless one byte that is not.
    if (r.chance(30)) queue.desc(queue.size - 1, queue.pageAddress(0), 1, queue.index & 1 ? 0 : 2)
    queue.setAvailIdx(queue.usedIdx + queue.size)
    if (r.chance(50)) racing = queue
    for (const chardev of this.hosts.values()) if (r.chance(50)) chardev.send(new Uint8Array(5000))
  }

  /** One control message, over and over, as fast as they are taken. */
  flood(): void {
    const r = this.random
    const queue = this.raw.queue(3)
    if (!queue) return
    const message = encodeControl(r.pick([0, 1, PORTS, 0xffffffff]), r.pick([0, 3, 6, 99]), r.below(2))
    queue.page(0).set(message)
    for (let i = 0; i < queue.size; i++) {
      queue.desc(i, queue.pageAddress(0), message.length, 0)
      queue.setAvailRing(i, i)
    }
    queue.setAvailIdx(queue.usedIdx + queue.size)
    racing = queue
    queue.notify()
  }

  async step(): Promise<void> {
    const r = this.random
    const { raw } = this
    const index = r.below(raw.device.queueCount)
    const queue = raw.queue(index)
    const op = r.below(29)
    this.trace.push(`${op} queue ${index}`)
    looks = looked = 0
    racing = undefined
    switch (op) {
      case 0:
        raw.transport.writeStatus(r.chance(20) ? r.below(256) : r.pick([0, 1, 3, 11, 15]))
        return
      case 1: {
        const features = r.chance(70)
          ? BASIC | (BigInt(r.below(4)) << 28n) | (BigInt(r.below(2)) << 40n)
          : BigInt(r.word())
        try {
          if (r.chance(30)) raw.start(features)
        } catch (error) {
          // The driver's own words, when its features were refused.
          if (!String(error).includes('did not enable')) throw error
        }
        return
      }
      case 2:
        raw.pci.writeBar(r.below(6), r.chance(70) ? r.below(0x3c) : r.below(0x8000), r.bytes(r.pick([1, 2, 4, 8, 3])))
        return
      case 3:
        raw.pci.writeConfig(r.chance(50) ? 0x84 + r.below(20) : r.below(300), r.bytes(r.pick([1, 2, 4, 8])))
        raw.pci.readConfig(0x94, new Uint8Array(4))
        return
      case 4:
        raw.pci.readBar(r.below(6), r.below(0x8000), new Uint8Array(r.below(16)))
        return
      case 5:
        if (r.chance(30)) raw.reset()
        return
      case 6: {
        // RING_RESET, and perhaps enabled anew.
        raw.pci.writeBar(4, 0x16, Uint8Array.of(index, 0))
        raw.pci.writeBar(4, 0x3a, Uint8Array.of(1, 0))
        return
      }
      case 7: {
        const region = r.pick(raw.memory.regions)
        if (!region || r.chance(50)) return
        raw.memory.remove(region.base, region.size)
        this.#removed.push(region)
        return
      }
      case 8: {
        const region = this.#removed.pop()
        if (region) raw.memory.add(region)
        return
      }
      case 9:
        await settle(1)
        return
      case 10:
      case 11:
        if (raw.queue(3) && raw.queue(3).size > 0)
          raw.control(
            r.chance(80) ? r.below(PORTS) : r.word(),
            r.chance(80) ? r.pick([0, 3, 6]) : r.below(65536),
            r.below(3),
          )
        return
      case 12:
        if (r.chance(30)) await this.addPort(r.below(PORTS))
        return
      case 13:
        if (r.chance(30) && this.raw.device.port(r.below(PORTS))) {
          const port = r.pick(raw.device.ports)
          this.hosts.delete(port.id)
          raw.device.removePort(port.id)
        }
        return
      case 14:
        r.pick([...this.hosts.values()])?.send(r.bytes(r.below(3000)))
        return
      case 15:
        r.pick([...this.hosts.values()])?.setConnected(r.chance(60))
        return
      case 16:
        r.pick([...this.hosts.values()])?.setRoom(r.pick([0, 1, 100, 5000, Infinity]))
        return
      case 17:
        if (raw.device.port(0)) raw.device.resizePort(0, 1 + r.below(500), 1 + r.below(200))
        return
      default:
    }
    if (!queue) return
    if (op === 18) {
      for (let i = r.below(8); i >= 0; i--) this.desc(queue.view, 16 * r.below(queue.size), queue.size)
      // Something like an indirect table, where descriptors may point.
      for (let i = 0; i < 4; i++) this.desc(queue.view, 0x4000 + 16 * i, 4)
    } else if (op === 19) {
      // A good chain: its page, in the right direction for the queue.
      const i = r.below(queue.size)
      queue.desc(i, queue.pageAddress(i), r.pick([8, 100, 4096]), index & 1 ? 0 : 2)
      queue.avail(i)
    } else if (op === 20)
      queue.setAvailIdx(queue.availIdx + r.pick([0, 1, 2, queue.size, queue.size + 1, r.below(65536), -1]))
    else if (op === 21) queue.avail(r.chance(80) ? r.below(queue.size) : r.below(65536))
    else if (op === 22) queue.setAvailFlags(r.below(2))
    else if (op === 23) queue.setUsedEvent(r.chance(50) ? queue.usedIdx : r.below(65536))
    else if (op === 26) this.shareTable(queue)
    else if (op === 27) for (let i = r.below(300); i > 0; i--) queue.notify()
    else if (op === 28) this.flood()
    else if (op === 24) for (let i = 0; i < Math.min(8, queue.size); i++) queue.postPage(i)
    queue.notify()
  }

  /** What must hold whatever has happened. */
  check(): void {
    for (const port of this.raw.device.ports) {
      const stats = port.stats()
      if (stats.held > BUFFER) throw new Error(`${stats.held} bytes are held`)
      for (const [name, n] of Object.entries(stats))
        if (!Number.isSafeInteger(n) || n < 0) throw new Error(`counter ${name} is ${n}`)
    }
    // Each fault breaks a queue until the device is reset, or is an attempt to enable one: nothing faults by itself.
    if (this.raw.device.faults > 2 * OPS) throw new Error('faults repeat themselves')
  }

  /** After a reset the device is as new. */
  async works(): Promise<void> {
    const { raw } = this
    looks = looked = 0
    racing = undefined
    for (const region of this.#removed.splice(0)) raw.memory.add(region)
    for (const port of [...raw.device.ports]) raw.device.removePort(port.id)
    this.hosts.clear()
    const command = raw.registers.config16(4)
    raw.registers.setConfig16(4, (command & ~0x400) | 6)
    const { chardev } = await raw.host({ id: 1, name: 'after' })
    raw.start(BASIC | (1n << 29n)).ready(2)
    assert.deepEqual(raw.messages(), ['DEVICE_ADD 1 1'])
    raw.open(1)
    assert.equal(raw.needsReset, false)
    raw.send(transmitqOf(1), Buffer.from('to the host'))
    assert.equal(chardev.text, 'to the host')
    raw.queue(receiveqOf(1)).postPage(0)
    raw.queue(receiveqOf(1)).notify()
    chardev.send('to the guest')
    await settle(2)
    assert.deepEqual(raw.queue(receiveqOf(1)).takeUsed(), [{ id: 0, len: 12 }])
    assert.equal(Buffer.from(raw.queue(receiveqOf(1)).page(0).subarray(0, 12)).toString(), 'to the guest')
  }
}

async function episode(seed: Seed): Promise<number> {
  const one = new Episode(seed)
  try {
    await one.addPort(1)
    if (one.random.chance(80)) {
      one.raw.start(BASIC | (BigInt(one.random.below(4)) << 28n) | (1n << 40n))
      if (one.random.chance(80)) one.raw.ready(2).open(1)
    }
    for (let i = 0; i < OPS && !one.random.ended; i++) {
      one.random.step()
      await one.step()
      one.check()
    }
    await settle(2)
    await one.works()
  } catch (error) {
    const last = one.trace.slice(-12).join(', ')
    throw new Error(`after ${one.trace.length} steps (${last}): ${String(error)}`, { cause: error })
  }
  return OPS
}

export const RINGS: FuzzTarget = {
  name: 'rings',
  title: 'drivers that break every rule, on our device',
  start() {
    watch()
    return { episode, close: () => void (DeviceQueue.prototype.gather = gather) }
  },
}
