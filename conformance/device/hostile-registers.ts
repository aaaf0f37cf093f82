/** Registers written by those who should not, when they should not, and memory that changes under the device's eyes. */

import { CONSOLE_BAD_ID, encodeControl, receiveqOf, transmitqOf } from '../../src/spec/console.ts'
import { VIRTIO_RING_F_INDIRECT_DESC } from '../../src/spec/features.ts'
import { PCI_CAP_ID_VNDR, PCI_CAPABILITY_LIST, VIRTIO_PCI_CAP_PCI_CFG } from '../../src/spec/pci.ts'
import { Random } from '../../fuzz/random.ts'
import { writeDesc } from '../../test/support/raw-queue.ts'
import { check, NotApplicable, type Case } from '../case.ts'
import { BASIC } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

/** Rounds of rewriting what the device reads, and how often it is told to look. */
const RACES = 20_000
const RACES_A_KICK = 40

/** Rewrites memory while the device, in another process, works on it. */
async function race(test: DeviceTest, rewrite: (random: Random, round: number) => void): Promise<void> {
  if (test.machine.pid === undefined)
    throw new NotApplicable('the device runs in the thread of the driver: nothing can change in between')
  for (let seed = 1; seed <= 3; seed++) {
    await test.up({ features: BASIC | VIRTIO_RING_F_INDIRECT_DESC })
    const port = test.port()
    const peer = await test.tryConnect(port)
    peer?.write(Buffer.alloc(200_000, 'x'))
    await test.open(port)
    const random = new Random(seed)
    for (let round = 0; round < RACES; round++) {
      rewrite(random, round)
      if (round % RACES_A_KICK > 0) continue
      test.registers.notify(transmitqOf(port.id))
      test.registers.notify(receiveqOf(port.id))
      if (test.machine.dead() !== undefined) break
    }
    await test.settle()
    peer?.close()
    await test.works()
  }
}

export const REGISTER_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'A2',
    async run(test) {
      const { common, isr, device, notify } = test.registers.structures
      if (test.machine.barAddress(common.bar) === undefined)
        throw new NotApplicable('BARs have no address on this machine')
      const places = { common, isr, device: device ?? common, notify }
      await test.parts(
        Object.fromEntries(
          Object.entries(places).flatMap(([name, { bar, offset }]) =>
            (['read from', 'written to'] as const).map((what) => [
              `${name} registers ${what}`,
              async () => {
                await test.up()
                const port = test.port()
                const peer = await test.tryConnect(port)
                await test.open(port)
                const address = test.machine.barAddress(bar)! + offset
                const write = what === 'written to'
                const queue = write ? test.receiveq(port.id) : test.transmitq(port.id)
                queue.chain([{ address, len: 32, write }])
                queue.notify()
                peer?.write(Buffer.alloc(64))
                await test.settle()
                await test.settle()
                peer?.close()
                await test.works()
              },
            ]),
          ),
        ),
      )
    },
  },
  { id: 'A3', na: 'the state of a device is the business of the VMM that saves it; a driver cannot reach it' },
  {
    id: 'A5',
    async run(test) {
      const pages = [0, 1, 2, 3]
      await race(test, (random, round) => {
        const port = test.port().id
        const queue = random.chance(50) ? test.transmitq(port) : test.receiveq(port)
        const i = random.below(4)
        const address = random.chance(80) ? queue.pageAddress(random.pick(pages)) : test.machine.hole
        queue.desc(i, address, random.pick([0, 1, 4096, 0xffff_ffff]), random.below(8), random.below(queue.size + 2))
        writeDesc(queue.view, 0x4000 + 16 * i, address, random.below(9000), random.below(8), random.below(6))
        if (round % 16 === 0) queue.avail(i)
      })
    },
  },
  {
    id: 'B4',
    async run(test) {
      const { registers } = test
      const { access } = registers
      await test.parts({
        'queue_select past the end': async () => {
          await test.up()
          for (const queue of [registers.read('num_queues'), 0x7fff, 0xffff]) {
            registers.select(queue)
            for (const vector of [0, 1, 0xfffe, 0xffff]) registers.write('queue_msix_vector', vector)
            for (const name of ['queue_size', 'queue_enable', 'queue_desc_lo', 'queue_device_hi'] as const)
              registers.write(name, 1)
            registers.read('queue_msix_vector')
            registers.read('queue_notify_off')
          }
          await test.works()
        },
        'size and places of a live queue': async () => {
          await test.up()
          const { port, peer } = await test.channel()
          const queue = transmitqOf(port.id)
          registers.select(queue).write('queue_size', 0x8000)
          for (const which of ['desc', 'driver', 'device'] as const) registers.setAddress(which, test.machine.hole)
          test.send(port, 'or not')
          await test.settle()
          peer.close()
          await test.works()
        },
        'sizes that cannot be': async () => {
          for (const size of [0, 3, 0x7fff, 0xffff]) {
            test.negotiate(BASIC & test.offered)
            const queue = test.make(1, 4)
            test.place(queue)
            registers.write('queue_size', size)
            registers.write('queue_enable', 1)
            test.status = 15
            queue.put(Uint8Array.of(1))
            queue.notify()
            await test.settle()
          }
          await test.works()
        },
        'odd widths and places': async () => {
          await test.up()
          const random = new Random(4)
          for (let i = 0; i < 300; i++) {
            const bar = random.pick([...access.barSizes.entries()].filter(([, size]) => size > 0).map(([n]) => n))
            const size = access.barSizes[bar]!
            const at = random.chance(70) ? random.below(Math.min(size - 4, 0x3c)) : random.below(size - 4)
            if (random.chance(40)) access.writeBar(bar, at, random.bytes(random.pick([1, 2, 4, 3])))
            else access.readBar(bar, at, new Uint8Array(random.pick([1, 2, 4, 3])))
          }
          await test.works()
        },
        'the configuration past its end': async () => {
          const { device } = registers.structures
          const room = device ? access.barSizes[device.bar]! - device.offset : 0
          for (const at of [12, 13, 64, 255, 256, 0xfff, room - 1])
            for (const len of [1, 2, 4])
              if (device && at + len <= room) {
                access.readBar(device.bar, device.offset + at, new Uint8Array(len))
                access.writeBar(device.bar, device.offset + at, new Uint8Array(len).fill(0xff))
              }
          await test.works()
        },
        'the window to everywhere': async () => {
          const window = findWindow(test)
          const random = new Random(5)
          for (let i = 0; i < 100; i++) {
            access.writeConfig(window + 4, Uint8Array.of(random.pick([0, 1, 2, 4, 5, 6, 255])))
            access.writeConfig(window + 8, word(random.pick([0, 0x14, 3, 0x1000, 0x2ffd, 0xffff_fffc, random.word()])))
            access.writeConfig(window + 12, word(random.pick([0, 1, 2, 3, 4, 8, 0xffff_ffff])))
            if (random.chance(50)) access.writeConfig(window + 16, random.bytes(random.pick([1, 2, 4])))
            access.readConfig(window + 16, new Uint8Array(4))
          }
          await test.works()
        },
        'features once it runs': async () => {
          await test.up()
          registers.setFeatures((1n << 64n) - 1n)
          registers.setFeatures(0n)
          test.status = 15
          const { port, peer } = await test.channel()
          test.send(port, 'as negotiated')
          await test.arrives(peer, 'as negotiated')
          peer.close()
        },
        'a reset in the middle': async () => {
          for (let i = 0; i < 10; i++) {
            test.start()
            const queue = test.queue(1)
            for (let n = 0; n < queue.size; n++) queue.put(encodeControl(CONSOLE_BAD_ID, 0, 1))
            queue.notify()
            test.status = 0
          }
          await test.works()
        },
        'bus master off, on, off': async () => {
          await test.up()
          const queue = test.queue(1)
          registers.busMaster(false)
          // Writes may be on their way for a while; what is made available is seen at once.
          await test.settle()
          const before = queue.usedIdx
          queue.put(Uint8Array.of(1))
          queue.notify()
          await test.settle()
          check(queue.usedIdx === before, 'the ring was written to without the right to do so (bus master off)')
          registers.busMaster(true)
          await test.works()
        },
      })
    },
  },
  {
    id: 'B6',
    async run(test) {
      await race(test, (random) => {
        const port = test.port().id
        const queue = random.chance(50) ? test.transmitq(port) : test.receiveq(port)
        for (let i = 0; i < 4; i++) queue.desc(i, queue.pageAddress(i), 64, queue.index & 1 ? 0 : 2)
        if (random.chance(60))
          queue.setAvailRing(random.below(queue.size), random.chance(90) ? random.below(4) : random.below(65_536))
        else queue.setAvailIdx(queue.usedIdx + random.pick([0, 1, 2, queue.size, queue.size + 1, random.below(65_536)]))
      })
    },
  },
  { id: 'D1', na: 'no vhost-user server: the same attacks on registers are B4, on vfio-user messages E2' },
  { id: 'D2', na: 'no vhost-user server: the same attacks on vfio-user messages are E3' },
  { id: 'R93', na: 'the device is on PCI; there is no MMIO transport' },
]

function findWindow(test: DeviceTest): number {
  const { pci } = test.registers
  for (let at = pci.config8(PCI_CAPABILITY_LIST) & ~3, i = 0; at >= 0x40 && i < 48; at = pci.config8(at + 1) & ~3, i++)
    if (pci.config8(at) === PCI_CAP_ID_VNDR && pci.config8(at + 3) === VIRTIO_PCI_CAP_PCI_CFG) return at
  throw new NotApplicable('there is no PCI configuration access capability')
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}
