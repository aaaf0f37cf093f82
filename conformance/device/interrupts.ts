/** Interrupts: the ISR and the pin, MSI-X vectors, and when a driver wants to hear of used buffers (§2.7.7, §4.1.4.5, §4.1.5). */

import { VIRTIO_RING_F_EVENT_IDX } from '../../src/spec/features.ts'
import { PCI_STATUS, PCI_STATUS_INTERRUPT, VIRTIO_MSI_NO_VECTOR } from '../../src/spec/pci.ts'
import type { RawQueue } from '../../test/support/raw-queue.ts'
import { check, NotApplicable, same, sameBits, type Case } from '../case.ts'
import { BASIC } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

/** A driver with the transmitq of an open port, whose buffers come back at once. */
async function sender(test: DeviceTest, features: bigint, vectors?: number): Promise<RawQueue> {
  await test.up({ features, ...(vectors === undefined ? {} : { vectors }) })
  const { port } = await test.channel()
  return test.transmitq(port.id)
}

/** Sends `count` buffers at once and waits until they are back. */
async function send(test: DeviceTest, queue: RawQueue, count = 1): Promise<void> {
  const end = (queue.usedIdx + count) & 0xffff
  for (let i = 0; i < count; i++) queue.put(Uint8Array.of(0x2e))
  queue.notify()
  await test.until(() => queue.usedIdx === end, `${count} buffers back`)
}

/** Whether `count` more used buffers make an interrupt. */
async function interrupts(
  test: DeviceTest,
  queue: RawQueue,
  expected: boolean,
  what: string,
  count = 1,
): Promise<void> {
  const before = test.queueInterrupts(queue.index)
  await send(test, queue, count)
  if (expected) return test.until(() => test.queueInterrupts(queue.index) > before, `an interrupt ${what}`)
  await test.settle()
  same(test.queueInterrupts(queue.index) - before, 0, `interrupts ${what}`)
}

/** Brings used.idx to `target` with as little noise as possible. */
async function wind(test: DeviceTest, queue: RawQueue, target: number): Promise<void> {
  while (queue.usedIdx !== target) {
    const left = (target - queue.usedIdx) & 0xffff
    // Out of reach of whatever is done until then.
    queue.setUsedEvent(queue.usedIdx - 1)
    await send(test, queue, Math.min(left, queue.size))
  }
}

/** Asks for an interrupt at `event` while used.idx goes from `from` to `from + count`. */
async function decide(test: DeviceTest, queue: RawQueue, offset: number, count: number): Promise<void> {
  const from = queue.usedIdx
  queue.setUsedEvent(from + offset)
  const expected = offset >= 0 && offset < count
  await interrupts(
    test,
    queue,
    expected,
    `for used.idx ${from} to ${(from + count) & 0xffff}, used_event ${(from + offset) & 0xffff}`,
    count,
  )
}

export const INTERRUPT_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'R37',
    async run(test) {
      const queue = await sender(test, BASIC)
      queue.setUsedEvent(0x7000)
      await interrupts(test, queue, true, 'with avail.flags 0, whatever used_event says')
      queue.setAvailFlags(1)
      queue.setUsedEvent(queue.usedIdx)
      await interrupts(test, queue, false, 'with avail.flags 1, whatever used_event says')
      queue.setAvailFlags(0)
      await interrupts(test, queue, true, 'with avail.flags 0 again')
    },
  },
  {
    id: 'R38',
    async run(test) {
      test.needs(VIRTIO_RING_F_EVENT_IDX, 'EVENT_IDX')
      const queue = await sender(test, BASIC | VIRTIO_RING_F_EVENT_IDX)
      queue.setAvailFlags(1)
      await decide(test, queue, 0, 1)
      queue.setAvailFlags(0)
      for (const [offset, count] of [
        [1, 1],
        [-1, 1],
        [1, 2],
        [2, 2],
        [0, 3],
        [2, 3],
        [3, 3],
      ] as const)
        await decide(test, queue, offset, count)
    },
  },
  {
    id: 'S10',
    async run(test) {
      test.needs(VIRTIO_RING_F_EVENT_IDX, 'EVENT_IDX')
      const queue = await sender(test, BASIC | VIRTIO_RING_F_EVENT_IDX)
      // All sorts of steps over the wrap, with every event near it: the whole circle is 2^16 buffers.
      await wind(test, queue, 0xfff6)
      for (const [offset, count] of [
        ...([
          [0, 1],
          [1, 1],
          [-2, 2],
          [0, 3],
          [2, 2],
          [1, 2],
          [3, 4],
          [4, 4],
          [-1, 3],
          [2, 4],
          [0, 2],
        ] as const),
      ])
        await decide(test, queue, offset, count)
      for (const offset of [0x4000, 0x7fff, 0x8000, 0xc000]) await decide(test, queue, offset, 2)
    },
  },
  {
    id: 'R82',
    async run(test) {
      const queue = await sender(test, BASIC, 0)
      const { registers, irq } = test
      // What came until now.
      registers.isr()
      await test.until(() => !irq!.pin(), 'the pin to go down')
      queue.put(Uint8Array.of(1))
      queue.notify()
      await test.until(() => irq!.pin(), 'the pin to go up')
      check(
        (registers.pci.config16(PCI_STATUS) & PCI_STATUS_INTERRUPT) !== 0,
        'the pin is up, and PCI Status says nothing',
      )
      sameBits(registers.isr() & 1, 1, 'queue bit of the ISR')
      await test.until(() => !irq!.pin(), 'the pin to go down once the ISR was read')
      sameBits(registers.isr(), 0, 'the ISR, read again')
      sameBits(registers.pci.config16(PCI_STATUS) & PCI_STATUS_INTERRUPT, 0, 'interrupt bit of PCI Status')
      await test.break(queue)
      await test.until(() => irq!.pin(), 'the pin to go up for the configuration')
      sameBits(registers.isr() & 2, 2, 'configuration bit of the ISR')
      if (!registers.msix) return
      // With MSI-X too, this one is set before the driver hears of it.
      test.machine.hangUp()
      await test.up()
      registers.isr()
      await test.break(test.transmitq(test.port().id))
      await test.until(() => test.configInterrupts() > 0, 'the configuration change notification')
      sameBits(registers.isr() & 2, 2, 'configuration bit of the ISR with MSI-X')
    },
  },
  {
    id: 'R87',
    run(test) {
      const { registers } = test
      const { msix } = registers
      if (!msix) throw new NotApplicable('the function has no MSI-X')
      test.prepare()
      check(msix.vectors >= 2 && msix.vectors <= 0x800, `${msix.vectors} MSI-X vectors`)
      const names = ['config_msix_vector', 'queue_msix_vector'] as const
      registers.select(0)
      for (const name of names) {
        for (const vector of [0, msix.vectors - 1, VIRTIO_MSI_NO_VECTOR, 1]) {
          registers.write(name, vector)
          sameBits(registers.read(name), vector, `${name} after a write of 0x${vector.toString(16)}`)
        }
        for (const vector of [msix.vectors, 0x7ff, 0x800, 0xfffe])
          if (vector >= msix.vectors) {
            registers.write(name, vector)
            sameBits(
              registers.read(name),
              VIRTIO_MSI_NO_VECTOR,
              `${name} after a write of vector ${vector} of ${msix.vectors}`,
            )
          }
        registers.write(name, 1)
      }
      test.reset()
      registers.select(0)
      for (const name of names) sameBits(registers.read(name), VIRTIO_MSI_NO_VECTOR, `${name} after a reset`)
    },
  },
  {
    id: 'R90',
    async run(test) {
      if (!test.registers.msix) throw new NotApplicable('the function has no MSI-X')
      const queue = await sender(test, BASIC)
      await interrupts(test, queue, true, 'with a vector')
      const { registers } = test
      registers.select(queue.index).write('queue_msix_vector', VIRTIO_MSI_NO_VECTOR)
      // Writes may be on their way for a while; what is made available is seen at once.
      sameBits(registers.read('queue_msix_vector'), VIRTIO_MSI_NO_VECTOR, 'queue_msix_vector')
      await test.settle()
      const before = Array.from({ length: test.vectors }, (_, vector) => test.irq!.count(vector))
      await send(test, queue)
      await test.settle()
      const after = before.map((_, vector) => test.irq!.count(vector))
      same(after, before, 'interrupts of all vectors when the queue has none')
      sameBits(
        test.registers.pci.config16(PCI_STATUS) & PCI_STATUS_INTERRUPT,
        0,
        'interrupt bit of PCI Status with MSI-X on',
      )
      test.registers.write('config_msix_vector', VIRTIO_MSI_NO_VECTOR)
      const config = test.configInterrupts()
      await test.break(queue)
      await test.settle()
      same(test.configInterrupts(), config, 'interrupts for the configuration when it has no vector')
    },
  },
]
