/**
 * Whatever happens to the ports of a device, and whenever the guest gives control buffers back, in the end the guest
 * knows exactly what is there. The guest is a model of Linux's driver.
 */

import fc from 'fast-check'
import { expect, it, vi } from 'vitest'
import { ControlNotes } from '../../src/device/control-notes.ts'
import { ControlSender } from '../../src/device/control.ts'
import { DeviceWork, Scheduler } from '../../src/device/work.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { Ledger } from '../../src/mem/ledger.ts'
import { Batch } from '../../src/ring/batch.ts'
import { DeviceQueue } from '../../src/ring/device-queue.ts'
import { SplitRing } from '../../src/ring/split-ring.ts'
import {
  decodeControl,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_RESIZE,
} from '../../src/spec/console.ts'

const SIZE = 4
const PORTS = 5
const AT = { desc: 0x1000, avail: 0x2000, used: 0x3000 }
const BUFFER = 0x8000
const BUFFER_LEN = 128

interface Known {
  name?: string
  console?: true
  open: boolean
  size?: string
}

class Scene {
  readonly sender: ControlSender
  /** What the guest knows, and what is true. */
  readonly known = new Map<number, Known>()
  readonly real = new Map<number, Known>()
  /** The guest gives a buffer back at once, from another processor, at each of the device's next looks at the index. */
  racing = 0
  readonly #bytes = new Uint8Array(1 << 16)
  readonly #ring: SplitRing
  readonly #queue = new DeviceQueue(2)
  /** Buffers that the guest has read and not given back. */
  #mine: number[] = []
  #avail = 0
  #taken = 0

  constructor() {
    const memory = new GuestMemory()
    memory.add({ base: 0, size: 1 << 16, bytes: this.#bytes, address: 0, writable: true })
    this.#ring = new SplitRing(memory, SIZE, AT)
    for (let i = 0; i < SIZE; i++) this.#ring.desc.set([BUFFER + i * BUFFER_LEN, 0, BUFFER_LEN, 2], i * 4)
    this.#queue.enable(memory, SIZE, AT, { eventIdx: true, indirect: false })
    this.#mine = Array.from({ length: SIZE }, (_, i) => i)
    const notes = new ControlNotes(PORTS, new Ledger())
    const work = new DeviceWork(new Scheduler(setImmediate), 8, () => this.pump())
    this.sender = new ControlSender(this.#queue, new Batch(), notes, 'cols-rows', work, () => () => {})
    this.sender.reset(true)
    this.sender.deviceReady(true)
    // oxlint-disable-next-line typescript/unbound-method -- called with its ring below
    const real = SplitRing.prototype.availIdx
    const race = (): void => this.race()
    vi.spyOn(SplitRing.prototype, 'availIdx').mockImplementation(function (this: SplitRing) {
      const idx = real.call(this)
      race()
      return idx
    })
  }

  race(): void {
    if (this.racing === 0) return
    this.racing--
    this.giveBack()
  }

  /** The guest gives one buffer back; false where it has none. */
  giveBack(): boolean {
    const head = this.#mine.shift()
    if (head === undefined) return false
    this.#ring.setAvailRing(this.#avail, head)
    this.#avail = (this.#avail + 1) & 0xffff
    this.#ring.publishAvailIdx(this.#avail)
    return true
  }

  pump(): void {
    this.sender.pump(() => {})
    this.#queue.flush()
  }

  /** The guest reads what it was told, and answers. */
  read(): number {
    let count = 0
    for (; this.#taken !== this.#ring.usedIdx(); this.#taken = (this.#taken + 1) & 0xffff, count++) {
      const head = this.#ring.usedId(this.#taken)
      const at = BUFFER + head * BUFFER_LEN
      this.#hear(this.#bytes.slice(at, at + this.#ring.usedLen(this.#taken)))
      this.#mine.push(head)
    }
    return count
  }

  #hear(bytes: Uint8Array): void {
    const { id, event, value } = decodeControl(bytes)!
    const port = this.known.get(id)
    const tail = bytes.subarray(8)
    if (event === VIRTIO_CONSOLE_DEVICE_ADD) {
      expect(port, 'a port that exists is not added').toBeUndefined()
      this.known.set(id, { open: false })
      this.sender.portReady(id, () => {})
    } else {
      expect(port, 'the guest hears of ports that it knows').toBeDefined()
      if (event === VIRTIO_CONSOLE_DEVICE_REMOVE) this.known.delete(id)
      else if (event === VIRTIO_CONSOLE_PORT_OPEN) port!.open = value !== 0
      else if (event === VIRTIO_CONSOLE_CONSOLE_PORT) port!.console = true
      else if (event === VIRTIO_CONSOLE_PORT_NAME) port!.name = Buffer.from(tail).toString()
      else if (event === VIRTIO_CONSOLE_RESIZE) port!.size = Buffer.from(tail).toString('hex')
    }
  }

  /** From here on the guest gives back what it has read, and notifies as it was asked to. */
  settle(): void {
    this.racing = 0
    for (let idle = 0; idle < 3; idle++) {
      while (this.giveBack());
      this.pump()
      if (this.read() > 0) idle = -1
    }
  }
}

/** One thing that happens. */
const step = fc.oneof(
  fc.record({ what: fc.constant('add' as const), id: fc.nat(PORTS - 1), console: fc.boolean(), name: fc.boolean() }),
  fc.record({ what: fc.constant('remove' as const), id: fc.nat(PORTS - 1) }),
  fc.record({ what: fc.constant('open' as const), id: fc.nat(PORTS - 1), open: fc.boolean() }),
  fc.record({ what: fc.constant('size' as const), id: fc.nat(PORTS - 1), cols: fc.integer({ min: 1, max: 9 }) }),
  fc.record({ what: fc.constant('back' as const), count: fc.nat(SIZE) }),
  fc.record({ what: fc.constant('race' as const), count: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ what: fc.constant('pump' as const) }),
  fc.record({ what: fc.constant('read' as const) }),
)

it('any interleaving of buffers given back and ports changed ends with the guest knowing what is there', () => {
  let names = 0
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      vi.restoreAllMocks()
      const scene = new Scene()
      const { sender, real } = scene
      for (const it of steps) {
        const port = 'id' in it ? real.get(it.id) : undefined
        if (it.what === 'add' && !port) {
          const name = it.name ? `port ${names++}` : undefined
          sender.add(it.id, it.console, name === undefined ? undefined : Buffer.from(name))
          real.set(it.id, { open: false, ...(name && { name }), ...(it.console && { console: true }) })
        } else if (it.what === 'remove' && port) {
          sender.setOpen(it.id, false)
          sender.remove(it.id)
          real.delete(it.id)
        } else if (it.what === 'open' && port) {
          sender.setOpen(it.id, it.open)
          port.open = it.open
        } else if (it.what === 'size' && port) {
          sender.setSize(it.id, it.cols, 1)
          if (port.console) port.size = Buffer.from(Uint16Array.of(it.cols, 1).buffer).toString('hex')
        } else if (it.what === 'back') for (let i = 0; i < it.count; i++) scene.giveBack()
        else if (it.what === 'race') scene.racing = it.count
        else if (it.what === 'read') scene.read()
        else if (it.what === 'pump') scene.pump()
        sender.save()
      }
      scene.settle()
      expect(scene.known).toEqual(real)
    }),
    { numRuns: 1000 },
  )
  vi.restoreAllMocks()
})

it('a buffer that comes back right after the device has found none', () => {
  const scene = new Scene()
  for (let id = 0; id < PORTS; id++) {
    scene.sender.add(id, false, undefined)
    scene.real.set(id, { open: false })
  }
  scene.racing = 1
  scene.pump()
  scene.settle()
  expect(scene.known).toEqual(scene.real)
  vi.restoreAllMocks()
})
