/** Feature bits and device status: what is offered, accepted, refused, and forgotten by a reset (§2.1, §2.2, §2.4). */

import {
  featureNames,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../src/spec/features.ts'
import { CONSOLE_BAD_ID, CONSOLE_CONFIG_MAX_NR_PORTS, encodeControl } from '../../src/spec/console.ts'
import { check, NotApplicable, same, sameBits, type Case } from '../case.ts'
import { BASIC, DRIVER_OK } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

const SR_IOV = 1n << 37n
/** Bits that mean something: of the console, legacy ones, and 28 to 42. */
const KNOWN: bigint = 0b111n | (1n << 24n) | (1n << 27n) | (((1n << 15n) - 1n) << 28n)
/** What this driver can speak. */
const SPOKEN: bigint =
  BASIC |
  VIRTIO_CONSOLE_F_EMERG_WRITE |
  VIRTIO_RING_F_EVENT_IDX |
  VIRTIO_RING_F_INDIRECT_DESC |
  VIRTIO_F_RING_RESET |
  VIRTIO_F_ACCESS_PLATFORM

/** The queue that any device serves at once: control messages, or output. */
function busyQueue(test: DeviceTest): number {
  return test.offers(VIRTIO_CONSOLE_F_MULTIPORT) ? 3 : 1
}

function* bits(mask: bigint): Generator<bigint> {
  for (let bit = 0n; bit < 64n; bit++) if (mask & (1n << bit)) yield 1n << bit
}

export const FEATURE_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'R1',
    async run(test) {
      test.prepare()
      const queue = test.queue(busyQueue(test))
      queue.put(encodeControl(CONSOLE_BAD_ID, 0, 1))
      queue.notify()
      await test.settle()
      same(queue.usedIdx, 0, 'used.idx before DRIVER_OK')
      same(test.queueInterrupts(queue.index) + test.configInterrupts(), 0, 'interrupts before DRIVER_OK')
      test.status |= DRIVER_OK
      queue.notify()
      await test.until(() => queue.usedIdx === 1, 'the buffer back after DRIVER_OK')
    },
  },
  {
    id: 'R2',
    async run(test) {
      test.start()
      const queue = test.queue(busyQueue(test))
      await test.break(queue)
      await test.until(() => test.configInterrupts() > 0, 'the configuration change notification that goes with it')
    },
  },
  {
    id: 'R8',
    run(test) {
      for (const bit of bits((test.offered >> 33n) << 33n))
        check(test.offers(VIRTIO_F_VERSION_1), `${featureNames(bit).join()} is offered without VERSION_1`)
    },
  },
  {
    id: 'R9',
    async run(test) {
      const parts: Record<string, () => void> = {}
      const accepted = (features: bigint) => () =>
        check(test.negotiate(features), `the offered ${featureNames(features).join('+')} are refused`)
      parts['VERSION_1 alone'] = accepted(VIRTIO_F_VERSION_1)
      parts['all that this driver speaks'] = accepted(test.offered & SPOKEN)
      for (const bit of bits(test.offered & SPOKEN & ~VIRTIO_F_VERSION_1))
        parts[`VERSION_1 and ${featureNames(bit).join()}`] = accepted(VIRTIO_F_VERSION_1 | bit)
      const foreign = [...bits(~test.offered & ((1n << 42n) - 1n) & ~VIRTIO_F_VERSION_1)][5]!
      parts[`${featureNames(foreign).join()}, which is not offered`] = () =>
        check(!test.negotiate(VIRTIO_F_VERSION_1 | foreign), 'FEATURES_OK stays set')
      await test.parts(parts)
    },
  },
  {
    id: 'R10',
    run(test) {
      const wanted = test.offered & SPOKEN
      for (let i = 0; i < 3; i++) check(test.negotiate(wanted), `a set that was accepted is refused after reset ${i}`)
    },
  },
  {
    id: 'R11',
    async run(test) {
      await test.up({ features: SPOKEN })
      const { port, peer } = await test.channel()
      test.send(port, 'all features')
      await test.arrives(peer, 'all features')
    },
  },
  {
    id: 'R12',
    async run(test) {
      test.start()
      await test.settle()
      const queue = test.queue(busyQueue(test))
      const count = (): number => test.queueInterrupts(queue.index) + test.configInterrupts()
      const interrupts = count()
      test.status = 0
      sameBits(test.status, 0, 'status after a reset')
      queue.put(encodeControl(CONSOLE_BAD_ID, 0, 1))
      const before = Buffer.from(queue.region.bytes)
      queue.notify()
      await test.settle()
      check(before.equals(queue.region.bytes), 'the ring was written to after a reset')
      same(count() - interrupts, 0, 'interrupts after a reset')
    },
  },
  {
    id: 'R17',
    run(test) {
      test.needs(VIRTIO_CONSOLE_F_MULTIPORT, 'MULTIPORT')
      const before = test.registers.config(CONSOLE_CONFIG_MAX_NR_PORTS, 4)
      check(before >= 1, `max_nr_ports is ${before} before any negotiation`)
      test.negotiate(VIRTIO_F_VERSION_1)
      same(
        test.registers.config(CONSOLE_CONFIG_MAX_NR_PORTS, 4),
        before,
        'max_nr_ports where MULTIPORT was offered and not accepted',
      )
    },
  },
  { id: 'R25', na: 'SUSPEND is of virtio 1.4, and no device offers it yet' },
  {
    id: 'R73',
    run(test) {
      const { registers } = test
      const word = (select: number): number => {
        registers.write('device_feature_select', select)
        return registers.read('device_feature')
      }
      for (let i = 0; i < 2; i++) {
        sameBits(word(1), Number(test.offered >> 32n), 'device_feature of word 1')
        sameBits(word(0), Number(test.offered & 0xffffffffn), 'device_feature of word 0')
      }
      for (const select of [4, 5, 0x7fff_ffff, 0xffff_ffff])
        sameBits(word(select), 0, `device_feature of word ${select}`)
    },
  },
  {
    id: 'R74',
    run(test) {
      const { registers } = test
      test.reset()
      test.status = 3
      const wanted = test.offered & SPOKEN
      registers.setFeatures(wanted)
      for (const select of [0, 1]) {
        registers.write('driver_feature_select', select)
        const word = Number((wanted >> BigInt(32 * select)) & 0xffffffffn)
        sameBits(registers.read('driver_feature'), word, `driver_feature of word ${select}`)
      }
    },
  },
  {
    id: 'R76',
    async run(test) {
      test.start()
      check(test.status !== 0, 'status is 0 after DRIVER_OK')
      test.status = 0
      await test.until(() => test.status === 0, 'status to read 0 after a 0 was written')
      test.start()
      check((test.status & DRIVER_OK) !== 0, 'the device cannot be started again')
    },
  },
  {
    id: 'R97',
    run(test) {
      check(test.offers(VIRTIO_F_VERSION_1), 'VERSION_1 is not offered')
    },
  },
  {
    id: 'R99',
    run(test) {
      test.needs(VIRTIO_F_ACCESS_PLATFORM, 'ACCESS_PLATFORM')
      check(test.negotiate(VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM), 'ACCESS_PLATFORM is offered and refused')
    },
  },
  {
    id: 'R100',
    run(test) {
      if (!test.offers(SR_IOV)) return
      // The capability lies in PCIe's extended configuration space.
      const bytes = new Uint8Array(4)
      for (let at = 0x100, i = 0; at >= 0x100 && i < 64; i++) {
        test.registers.access.readConfig(at, bytes)
        const header = new DataView(bytes.buffer).getUint32(0, true)
        if ((header & 0xffff) === 0x10) return
        at = header >>> 20
      }
      check(false, 'SR_IOV is offered, and the function has no such capability')
    },
  },
  {
    id: 'S4',
    async run(test) {
      await test.up()
      const heard = test.heard.length
      const queue = test.queue(busyQueue(test))
      const used = queue.usedIdx
      for (let i = 0; i < 4; i++) test.status = 15
      await test.quiet()
      same(test.heard.length, heard, 'control messages once DRIVER_OK is written again')
      same(queue.usedIdx, used, 'used.idx once DRIVER_OK is written again')
      queue.put(encodeControl(CONSOLE_BAD_ID, 0xff, 0))
      queue.notify()
      await test.until(() => queue.usedIdx === ((used + 1) & 0xffff), 'the next buffer in the next used entry')
    },
  },
  {
    id: 'S12',
    run(test) {
      same(featureNames(test.offered & ~KNOWN), [], 'bits that mean nothing for a console')
      const ports =
        test.registers.structures.device === undefined ? 1 : test.registers.config(CONSOLE_CONFIG_MAX_NR_PORTS, 4)
      if (ports > 1)
        check(test.offers(VIRTIO_CONSOLE_F_MULTIPORT), `max_nr_ports is ${ports}, and MULTIPORT (bit 1) is not offered`)
    },
  },
  {
    id: 'R48',
    run(test) {
      test.needs(VIRTIO_F_IN_ORDER, 'IN_ORDER')
      throw new NotApplicable('this driver does not speak IN_ORDER')
    },
  },
  ...['R50', 'R51', 'R52', 'R53', 'R56', 'R58', 'R61', 'R62'].map((id) => ({
    id,
    run(test: DeviceTest) {
      test.needs(VIRTIO_F_RING_PACKED, 'RING_PACKED')
      throw new NotApplicable('this driver does not speak RING_PACKED')
    },
  })),
]
