/**
 * A device process that dies at any moment, also between a system call and the note of it, and its successor, which has
 * the ledger, guest memory and the descriptors: no byte is lost, comes twice or was never sent, in either direction,
 * whatever the driver did before: rings, resets, ports that close and open. All in one process: the dead device is cut
 * off.
 */

import assert from 'node:assert/strict'
import { ftruncateSync } from 'node:fs'
import { type Chardev, type ChardevEnd } from '../src/chardev/chardev.ts'
import { closeFd } from '../src/ffi/libc.ts'
import { createMemfd, SharedMapping } from '../src/ffi/mmap.ts'
import { readv, writev } from '../src/ffi/rw.ts'
import { Receiver, sendBytes } from '../src/ffi/scm.ts'
import { packetPair } from '../src/ffi/socket-calls.ts'
import type { Iovec } from '../src/mem/iovec.ts'
import { Ledger, LEDGER_LEN } from '../src/mem/ledger.ts'
import { CONTROL_RECEIVEQ, receiveqOf, transmitqOf } from '../src/spec/console.ts'
import { PORT_DEFAULTS, settle } from '../test/support/pair.ts'
import { BASIC, RawDriver } from '../test/support/raw-driver.ts'
import { PAGE_LEN, RawQueue, RING_LEN } from '../test/support/raw-queue.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const STEPS = 60
const PORT = 1
const [RX, TX] = [receiveqOf(PORT), transmitqOf(PORT)]
const QUEUES = 6
const SIZE = 8
const CHUNK_MAX = 300
/** Looks of both sides at the end: more than there are packets. */
const ROUNDS = 1000
/** What a driver's fresh buffers happen to hold. */
const STALE = 0x41
/** The byte at a position of a stream; none is STALE. */
const byteAt = (position: number): number => 0x80 + (position % 127)

class Death extends Error {}

/** A peer's socket as a back end, without an event loop: `look` is its turn. */
class SocketEnd implements Chardev {
  readonly label = 'socket'
  readonly place = undefined
  readonly connected = true
  /** The next system call is the last. */
  dies = false
  #reading = false
  readonly #fd: number
  readonly #end: ChardevEnd

  constructor(fd: number, end: ChardevEnd) {
    this.#fd = fd
    this.#end = end
  }

  look(): void {
    if (this.#reading) this.#end.readable()
    this.#end.writable()
  }
  writev(list: Iovec): number {
    return this.#died(writev(this.#fd, list))
  }
  readv(list: Iovec): number {
    return this.#died(readv(this.#fd, list))
  }
  #died(moved: number): number {
    if (this.dies) throw new Death('killed behind a system call')
    return moved
  }
  setReading(on: boolean): void {
    this.#reading = on
  }
  discardInput(): number {
    return 0
  }
  disconnect(): void {}
  close(): void {}
}

class Life {
  readonly #r: Random
  readonly #pair = packetPair()
  readonly #received = new Uint8Array(new ArrayBuffer(1 << 16))
  readonly #receiver = new Receiver(this.#received)
  #raw: RawDriver
  #end!: SocketEnd
  #ledger: { fd: number; bytes: Uint8Array }
  readonly #regions: RawDriver['memory']['regions'][number][]
  #queues: RawQueue[] = []
  /** Pages of the receiveq that are with the guest. */
  #free: number[] = []
  #freeTx: number[] = []
  /** Positions: what the host sent, the guest read, the guest sent, the host read. */
  #sent = 0
  #read = 0
  #wrote = 0
  #arrived = 0

  constructor(r: Random) {
    this.#r = r
    const { ledger, place } = newLedger()
    this.#ledger = place
    this.#raw = make(ledger)
    const { machine } = this.#raw
    for (let i = 0; i < 2 * QUEUES; i++) machine.allocate(i % 2 === 0 ? RING_LEN : SIZE * PAGE_LEN)
    this.#regions = [...this.#raw.memory.regions]
  }

  async begin(): Promise<void> {
    await this.#addPort(false)
    this.#startDriver()
  }

  async #addPort(resumed: boolean): Promise<void> {
    await this.#raw.device.addPort(
      { ...PORT_DEFAULTS, id: PORT, name: 'port', onClose: 'keep' },
      async (end) => (this.#end = new SocketEnd(this.#pair.ours, end)),
      resumed,
    )
  }

  /** A driver that starts anew on the same pages. */
  #startDriver(): void {
    const raw = this.#raw
    raw.negotiate(BASIC | (BigInt(this.#r.below(4)) << 28n))
    this.#queues = []
    for (let i = 0; i < QUEUES; i++) {
      const [ring, pages] = [this.#regions[2 * i]!, this.#regions[2 * i + 1]!]
      ring.bytes.fill(0)
      pages.bytes.fill(STALE)
      const queue = new RawQueue(i, SIZE, ring, pages, (index) => this.#raw.device.notify(index))
      this.#queues.push(queue)
      raw.transport.enableQueue(i, SIZE, queue.at, true)
    }
    raw.transport.writeStatus(15)
    const control = this.#queues[CONTROL_RECEIVEQ]!
    for (let i = 0; i < SIZE; i++) control.postPage(i)
    control.notify()
    this.#control(0xffff_ffff, 0)
    this.#control(PORT, 3)
    this.#control(PORT, 6)
    this.#free = Array.from({ length: SIZE }, (_, i) => i)
    this.#freeTx = this.#free.slice()
    // Drivers fill the ring before they notify.
    if (this.#r.chance(50)) while (this.#free.length > 0) this.#queues[RX]!.postPage(this.#free.shift()!)
  }

  #control(id: number, event: number): void {
    const queue = this.#queues[3]!
    const words = new DataView(new ArrayBuffer(8))
    words.setUint32(0, id, true)
    words.setUint16(4, event, true)
    words.setUint16(6, 1, true)
    queue.page(0).set(new Uint8Array(words.buffer))
    queue.desc(0, queue.pageAddress(0), 8, 0)
    queue.avail(0)
    queue.notify()
  }

  async step(): Promise<void> {
    const r = this.#r
    switch (r.below(10)) {
      case 0:
      case 1: {
        const bytes = Uint8Array.from({ length: 1 + r.below(CHUNK_MAX) }, (_, i) => byteAt(this.#sent + i))
        if (sendBytes(this.#pair.theirs, bytes, bytes.length) > 0) this.#sent += bytes.length
        break
      }
      case 2:
      case 3: {
        const queue = this.#queues[RX]!
        for (let i = r.below(4); i >= 0 && this.#free.length > 0; i--) queue.postPage(this.#free.shift()!)
        // A process may die between the two.
        if (r.chance(60)) queue.notify()
        break
      }
      case 4:
      case 5: {
        const queue = this.#queues[TX]!
        const page = this.#freeTx.shift()
        if (page === undefined) break
        const len = 1 + r.below(CHUNK_MAX)
        for (let i = 0; i < len; i++) queue.page(page)[i] = byteAt(this.#wrote + i)
        this.#wrote += len
        queue.desc(page, queue.pageAddress(page), len, 0)
        queue.avail(page)
        if (r.chance(80)) queue.notify()
        break
      }
      case 6:
        this.#guestReads()
        break
      case 7:
        this.#hostReads()
        break
      case 8:
        if (r.chance(60)) this.#resetDriver()
        break
      default:
        if (r.chance(50)) throw new Death('killed between two turns')
        this.#end.dies = true
    }
    if (r.chance(70)) this.#end.look()
    // Not in a turn that nobody waits for.
    this.#end.dies = false
    if (r.chance(20)) await settle(1)
  }

  #resetDriver(): void {
    this.#guestReads()
    this.#raw.reset()
    this.#hostReads()
    // What lies in the ring is lost.
    this.#wrote = this.#arrived
    this.#startDriver()
  }

  #guestReads(): void {
    const queue = this.#queues[RX]!
    for (const { id, len } of queue.takeUsed()) {
      this.#read = follow('the guest', queue.page(id).subarray(0, len), this.#read, this.#sent)
      queue.page(id).fill(STALE)
      this.#free.push(id)
    }
    for (const { id } of this.#queues[TX]!.takeUsed()) this.#freeTx.push(id)
  }

  #hostReads(): void {
    for (;;) {
      const len = this.#receiver.receive(this.#pair.theirs, 0, this.#received.length)
      if (len <= 0) return
      this.#arrived = follow('the host', this.#received.subarray(0, len), this.#arrived, this.#wrote)
    }
  }

  /** Another process, with what this one has left. */
  async takeOver(): Promise<void> {
    const old = this.#raw
    const { ledger, place } = newLedger(this.#ledger.bytes)
    for (const region of this.#regions) old.memory.remove(region.base, region.size)
    old.device.close()
    closeFd(this.#ledger.fd)
    this.#ledger = place
    this.#raw = make(ledger)
    for (const region of this.#regions) this.#raw.memory.add(region)
    await this.#addPort(true)
    this.#raw.pci.resume()
  }

  /** Until nothing moves any more: everything is there. */
  async finish(): Promise<void> {
    const done = (): boolean => this.#read === this.#sent && this.#arrived === this.#wrote
    for (let i = 0; i < ROUNDS && (i < SIZE || !done()); i++) {
      this.#guestReads()
      this.#hostReads()
      while (this.#free.length > 0) this.#queues[RX]!.postPage(this.#free.shift()!)
      for (const queue of [RX, TX]) this.#queues[queue]!.notify()
      this.#end.look()
      await settle(1)
    }
    this.#guestReads()
    this.#hostReads()
    assert.equal(this.#read, this.#sent, 'bytes to the guest are lost')
    assert.equal(this.#arrived, this.#wrote, 'bytes to the host are lost')
  }

  close(): void {
    this.#raw.device.close()
    for (const fd of [this.#ledger.fd, this.#pair.ours, this.#pair.theirs]) closeFd(fd)
  }
}

/** The position behind these bytes. */
function follow(who: string, bytes: Uint8Array, at: number, end: number): number {
  assert.ok(
    bytes.every((byte) => byte >= 0x80),
    `${who} reads what nobody sent`,
  )
  for (const byte of bytes) assert.equal(byte, byteAt(at++), `${who} reads other bytes than were sent`)
  assert.ok(at <= end, `${who} reads more than was sent`)
  return at
}

function newLedger(left?: Uint8Array): { ledger: Ledger; place: { fd: number; bytes: Uint8Array } } {
  const fd = createMemfd('fuzz-ledger', false)
  ftruncateSync(fd, LEDGER_LEN)
  const mapping = new SharedMapping(fd, LEDGER_LEN, true)
  const { bytes } = mapping.pieces(0, LEDGER_LEN)[0]!
  if (left) bytes.set(left)
  return { ledger: new Ledger(bytes, mapping.address, left !== undefined), place: { fd, bytes } }
}

function make(ledger: Ledger): RawDriver {
  return new RawDriver({ device: { maxPorts: 2, queueSize: SIZE, controlQueueSize: SIZE, ledger }, pci: { ledger } })
}

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const life = new Life(r)
  try {
    await life.begin()
    for (let i = 0; i < STEPS && !r.ended; i++) {
      r.step()
      await orTakeOver(life, () => life.step())
    }
    await orTakeOver(life, async () => {
      throw new Death('killed at the end')
    })
    await orTakeOver(life, () => life.finish())
    await life.finish()
  } finally {
    life.close()
  }
  return STEPS
}

async function orTakeOver(life: Life, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof Death)) throw error
    await life.takeOver()
  }
}

export const RESUME: FuzzTarget = simple('resume', 'successors of device processes that died at any moment', episode)
