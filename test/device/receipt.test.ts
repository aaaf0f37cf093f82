/**
 * What the kernel has noted of the last system call belongs to one life of a queue: it is never replayed into a new
 * ring.
 */

import { ftruncateSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { DeviceNotes } from '../../src/device/device-notes.ts'
import type { PortTable } from '../../src/device/port-table.ts'
import { DeviceQueues } from '../../src/device/queues.ts'
import { DeviceWork, Scheduler } from '../../src/device/work.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { createMemfd, SharedMapping } from '../../src/ffi/mmap.ts'
import { readv, writev } from '../../src/ffi/rw.ts'
import { sendBytes } from '../../src/ffi/scm.ts'
import { packetPair } from '../../src/ffi/socket-calls.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { LEDGER_LEN, Ledger } from '../../src/mem/ledger.ts'
import { MMSG, NO_RECEIPT } from '../../src/mem/receipts.ts'
import { Batch } from '../../src/ring/batch.ts'
import { receiveqOf, transmitqOf } from '../../src/spec/console.ts'

const SIZE = 8
const GUEST_LEN = 1 << 20
const BUFFER = 0x8000
const AT = { desc: 0x1000, avail: 0x4000, used: 0x5000 }
const FEATURES = { eventIdx: true, indirect: false }
const RX = receiveqOf(1)
const TX = transmitqOf(1)

const fds: number[] = []
afterEach(() => {
  for (const fd of fds.splice(0)) closeFd(fd)
})

function file(len: number): number {
  const fd = createMemfd('test', false)
  fds.push(fd)
  ftruncateSync(fd, len)
  return fd
}

/** A guest's memory and a ledger that processes inherit from each other. */
class World {
  readonly memory = new GuestMemory()
  readonly #ledger = file(LEDGER_LEN)
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly ours: number
  readonly theirs: number

  constructor() {
    const [piece] = new SharedMapping(file(GUEST_LEN), GUEST_LEN, true).pieces(0, GUEST_LEN)
    const { bytes, address } = piece!
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset)
    this.memory.add({ base: 0, size: GUEST_LEN, bytes, address, writable: true })
    const { ours, theirs } = packetPair()
    this.ours = ours
    this.theirs = theirs
    fds.push(ours, theirs)
  }

  /** A driver sets up a ring full of buffers. */
  fill(writable: boolean): void {
    this.#bytes.fill(0, 0x1000, 0x8000)
    for (let i = 0; i < SIZE; i++) {
      this.#view.setBigUint64(AT.desc + 16 * i, BigInt(BUFFER + 4096 * i), true)
      this.#view.setUint32(AT.desc + 16 * i + 8, 4096, true)
      this.#view.setUint16(AT.desc + 16 * i + 12, writable ? 2 : 0, true)
      this.#view.setUint16(AT.avail + 4 + 2 * i, i, true)
    }
    this.#view.setUint16(AT.avail + 2, SIZE, true)
  }

  get usedIdx(): number {
    return this.#view.getUint16(AT.used + 2, true)
  }

  /** A process that has the device, from the start or after another. */
  process(resumed: boolean) {
    const mapping = new SharedMapping(this.#ledger, LEDGER_LEN, true)
    const [piece] = mapping.pieces(0, LEDGER_LEN)
    const notes = new DeviceNotes(new Ledger(piece!.bytes, mapping.address, resumed), 2, 6)
    const work = new DeviceWork(new Scheduler(() => {}), 7, () => {})
    const queues = new DeviceQueues(
      6,
      notes.queues,
      work,
      () => {},
      () => {},
    )
    const counted: Record<string, number> = { guestToHostBytes: 0, hostToGuestBytes: 0 }
    const ports = { get: () => ({ counters: counted, warn() {} }) } as unknown as PortTable
    const resume = (queue: number): typeof counted => {
      queues.resume(queue, this.memory, SIZE, AT, FEATURES)
      notes.replay(queues, ports, new Batch())
      queues.get(queue)!.flush()
      return counted
    }
    return { queues, notes, resume }
  }

  /**
   * Moves bytes between a queue and the host, up to the moment where the process dies: `record` is whether it came to
   * that.
   */
  move(first: ReturnType<World['process']>, queue: number, record = true): number {
    const batch = new Batch()
    const it = first.queues.get(queue)!
    if (queue === RX) sendBytes(this.theirs, Buffer.from('hello from the host'), 19)
    it.gather(batch, queue === RX ? 'writable' : 'readable', 1024)
    const bytes = queue === RX ? readv(this.ours, batch.list) : writev(this.ours, batch.list)
    if (record) {
      it.complete(batch, bytes)
      it.flush()
    }
    return bytes
  }
}

describe.each([
  ['receiveq', RX],
  ['transmitq', TX],
])('a %s', (_, queue) => {
  it('whose process died before it could note what had moved: it is noted by the next', () => {
    const world = new World()
    const first = world.process(false)
    world.fill(queue === RX)
    first.queues.enable(queue, world.memory, SIZE, AT, FEATURES)
    const bytes = world.move(first, queue, false)
    expect(bytes).toBeGreaterThan(0)
    const second = world.process(true)
    expect(Object.values(second.resume(queue)).toSorted((a, b) => b - a)).toEqual([bytes, 0])
    expect(world.usedIdx).toBe(1)
  })

  it.each<[string, (first: ReturnType<World['process']>, world: World) => void]>([
    ['a queue reset', (first) => first.queues.disable(queue)],
    ['a device reset', (first) => first.queues.disableAll()],
    ['nothing: it is enabled anew', () => {}],
  ])('that is enabled anew after %s starts from nothing', (_name, end) => {
    const world = new World()
    const first = world.process(false)
    world.fill(queue === RX)
    first.queues.enable(queue, world.memory, SIZE, AT, FEATURES)
    world.move(first, queue)
    end(first, world)
    world.fill(queue === RX)
    first.queues.enable(queue, world.memory, SIZE, AT, FEATURES)
    const second = world.process(true)
    expect(second.resume(queue)).toEqual({ guestToHostBytes: 0, hostToGuestBytes: 0 })
    expect(world.usedIdx).toBe(0)
  })

  it('that was reset when its process died, and whose registers say otherwise, is where its ring is', () => {
    const world = new World()
    const first = world.process(false)
    world.fill(queue === RX)
    first.queues.enable(queue, world.memory, SIZE, AT, FEATURES)
    world.move(first, queue)
    first.queues.disable(queue)
    const second = world.process(true)
    second.resume(queue)
    // Nothing was published that is not there.
    expect(world.usedIdx).toBe(1)
  })

  it('has no receipt any more for what is in its position', () => {
    const world = new World()
    const first = world.process(false)
    world.fill(queue === RX)
    first.queues.enable(queue, world.memory, SIZE, AT, FEATURES)
    world.move(first, queue)
    expect(first.notes.queues.receipts!.words[MMSG.len]).toBe(NO_RECEIPT)
  })
})
