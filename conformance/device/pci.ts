/** The function as PCI shows it: identity, capabilities and what they point at (§4.1.2, §4.1.4). */

import {
  PCI_BASE_ADDRESS_0,
  PCI_CAP_ID_VNDR,
  PCI_CAPABILITY_LIST,
  PCI_CLASS_REVISION,
  PCI_DEVICE_ID,
  PCI_DEVICE_ID_VIRTIO_BASE,
  PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_ID_MIN,
  PCI_VENDOR_ID,
  PCI_VENDOR_ID_VIRTIO,
  VIRTIO_ID_CONSOLE,
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_CAP_PCI_CFG,
  VIRTIO_PCI_COMMON_CFG_SIZEOF_MIN,
} from '../../src/spec/pci.ts'
import { VIRTIO_F_NOTIFICATION_DATA } from '../../src/spec/features.ts'
import { check, NotApplicable, sameBits, type Case } from '../case.ts'
import type { DeviceTest } from '../raw/test.ts'

const MODERN = PCI_DEVICE_ID_VIRTIO_BASE + VIRTIO_ID_CONSOLE
const HEADER_TYPE = 0x0e
const CAPS_MAX = 48
const NOTIFY_CAP_LEN = 20
const CAP_LEN = 16

interface Capability {
  at: number
  len: number
  type: number
  bar: number
  offset: number
  length: number
}

/** The virtio capabilities in the order of the list, as they are. */
function capabilities({ registers: { pci } }: DeviceTest): Capability[] {
  check((pci.config16(PCI_STATUS) & PCI_STATUS_CAP_LIST) !== 0, 'the function has no capability list')
  const list: Capability[] = []
  const seen = new Set<number>()
  for (let at = pci.config8(PCI_CAPABILITY_LIST) & ~3; at !== 0; at = pci.config8(at + 1) & ~3) {
    check(at >= 0x40 && !seen.has(at) && seen.size < CAPS_MAX, `the capability list loops or leaves its place at ${at}`)
    seen.add(at)
    if (pci.config8(at) !== PCI_CAP_ID_VNDR) continue
    list.push({
      ...{ at, len: pci.config8(at + 2), type: pci.config8(at + 3), bar: pci.config8(at + 4) },
      ...{ offset: pci.config32(at + 8), length: pci.config32(at + 12) },
    })
  }
  return list
}

function ofType(test: DeviceTest, type: number, name: string): Capability[] {
  const list = capabilities(test).filter((capability) => capability.type === type)
  check(list.length > 0, `there is no ${name} capability`)
  return list
}

const isPowerOfTwo = (n: number): boolean => n > 0 && (n & (n - 1)) === 0

function transitional({ registers: { pci } }: DeviceTest): boolean {
  return pci.config16(PCI_DEVICE_ID) === PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE
}

export const PCI_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'R63',
    run(test) {
      const { pci } = test.registers
      sameBits(pci.config8(HEADER_TYPE) & 0x7f, 0, 'header type')
      sameBits(pci.config32(PCI_VENDOR_ID + 0) & 0xffff, PCI_VENDOR_ID_VIRTIO, 'vendor id in a 32-bit read')
      capabilities(test)
      for (const [bar, size] of test.machine.access.barSizes.entries())
        if (size > 0) {
          check(isPowerOfTwo(size), `BAR ${bar} has ${size} bytes, which is no power of two`)
          const base = pci.config32(PCI_BASE_ADDRESS_0 + 4 * bar)
          if ((base & 1) === 0)
            check((base & ~0xf) % size === 0, `BAR ${bar} is at 0x${base.toString(16)}, not aligned to its size`)
        }
    },
  },
  {
    id: 'R64',
    run({ registers: { pci } }) {
      sameBits(pci.config16(PCI_VENDOR_ID), PCI_VENDOR_ID_VIRTIO, 'vendor id')
      const device = pci.config16(PCI_DEVICE_ID)
      check([MODERN, PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE].includes(device), `device id 0x${device.toString(16)}`)
    },
  },
  {
    id: 'R65',
    run(test) {
      if (transitional(test)) throw new NotApplicable('the device is transitional')
      const { pci } = test.registers
      check((pci.config32(PCI_CLASS_REVISION) & 0xff) >= 1, 'the revision of a non-transitional device is 0')
      const subsystem = pci.config16(PCI_SUBSYSTEM_ID)
      check(subsystem >= PCI_SUBSYSTEM_ID_MIN, `subsystem device id 0x${subsystem.toString(16)} is below 0x40`)
    },
  },
  {
    id: 'R67',
    run(test) {
      if (!transitional(test)) throw new NotApplicable('the device is not transitional')
      const { pci } = test.registers
      sameBits(pci.config32(PCI_CLASS_REVISION) & 0xff, 0, 'revision')
      sameBits(pci.config16(PCI_SUBSYSTEM_ID), VIRTIO_ID_CONSOLE, 'subsystem device id')
    },
  },
  {
    id: 'R69',
    run(test) {
      const { registers } = test
      registers.select(0)
      for (const name of ['queue_desc', 'queue_driver', 'queue_device'] as const) {
        registers.write(`${name}_hi`, 0x12)
        registers.write(`${name}_lo`, 0x3456_7000)
        sameBits(registers.read(`${name}_lo`), 0x3456_7000, `${name}, low half`)
        sameBits(registers.read(`${name}_hi`), 0x12, `${name}, high half`)
        registers.write(`${name}_lo`, 0)
        sameBits(registers.read(`${name}_hi`), 0x12, `${name}, high half after the low one was written`)
      }
    },
  },
  {
    id: 'R71',
    run(test) {
      for (const { at, len, type } of capabilities(test)) {
        const needed = type === VIRTIO_PCI_CAP_NOTIFY_CFG || type === VIRTIO_PCI_CAP_PCI_CFG ? NOTIFY_CAP_LEN : CAP_LEN
        check(
          len >= needed,
          `the capability at 0x${at.toString(16)} of type ${type} says ${len} bytes, it has ${needed}`,
        )
        check(at + len <= 256, `the capability at 0x${at.toString(16)} leaves configuration space`)
      }
    },
  },
  {
    id: 'R72',
    run(test) {
      const { barSizes } = test.machine.access
      for (const { offset, length, bar } of ofType(test, VIRTIO_PCI_CAP_COMMON_CFG, 'common configuration')) {
        check(offset % 4 === 0, `the common configuration is at 0x${offset.toString(16)}, not aligned to 4`)
        check(length >= VIRTIO_PCI_COMMON_CFG_SIZEOF_MIN, `the common configuration has ${length} bytes`)
        check(offset + length <= (barSizes[bar] ?? 0), `the common configuration leaves BAR ${bar}`)
      }
    },
  },
  {
    id: 'R81',
    run(test) {
      const { registers } = test
      const wide = test.offers(VIRTIO_F_NOTIFICATION_DATA)
      for (const { at, offset, length, bar } of ofType(test, VIRTIO_PCI_CAP_NOTIFY_CFG, 'notification')) {
        const multiplier = registers.pci.config32(at + CAP_LEN)
        check(offset % (wide ? 4 : 2) === 0, `notifications are at 0x${offset.toString(16)}, not aligned`)
        check(
          multiplier === 0 || (isPowerOfTwo(multiplier) && multiplier % (wide ? 4 : 2) === 0),
          `notify_off_multiplier is ${multiplier}`,
        )
        check(offset + length <= (test.machine.access.barSizes[bar] ?? 0), `notifications leave BAR ${bar}`)
        const count = registers.read('num_queues')
        for (const queue of [0, 1, count - 1]) {
          const end = registers.select(queue).read('queue_notify_off') * multiplier + (wide ? 4 : 2)
          check(length >= end, `queue ${queue} is notified at ${end - 2}, past the ${length} bytes there are`)
        }
      }
    },
  },
  {
    id: 'R84',
    run(test) {
      for (const { offset, length } of ofType(test, VIRTIO_PCI_CAP_DEVICE_CFG, 'device configuration')) {
        check(offset % 4 === 0, `the device configuration is at 0x${offset.toString(16)}, not aligned to 4`)
        check(length >= 8, `the device configuration has ${length} bytes: max_nr_ports would not fit`)
      }
      check(
        ofType(test, VIRTIO_PCI_CAP_ISR_CFG, 'ISR').every(({ length }) => length >= 1),
        'the ISR has no byte',
      )
    },
  },
  {
    id: 'R85',
    run(test) {
      const [window] = ofType(test, VIRTIO_PCI_CAP_PCI_CFG, 'PCI configuration access')
      const { access, pci, structures } = test.registers
      const aim = (offset: number, len: number): void => {
        access.writeConfig(window!.at + 4, Uint8Array.of(structures.common.bar))
        access.writeConfig(window!.at + 8, u32(structures.common.offset + offset))
        access.writeConfig(window!.at + 12, u32(len))
      }
      const data = window!.at + CAP_LEN
      test.status = 0
      aim(0x14, 1)
      access.writeConfig(data, Uint8Array.of(1))
      sameBits(test.status, 1, 'device_status after a write of 1 through the window')
      sameBits(pci.config8(data), 1, 'device_status read through the window')
      aim(0x16, 2)
      access.writeConfig(data, Uint8Array.of(1, 0))
      sameBits(test.registers.read('queue_select'), 1, 'queue_select after a write of 1 through the window')
      aim(0x00, 4)
      access.writeConfig(data, u32(1))
      sameBits(test.registers.read('device_feature_select'), 1, 'device_feature_select written through the window')
      aim(0x04, 4)
      sameBits(pci.config32(data), Number(test.offered >> 32n), 'device_feature read through the window')
    },
  },
  {
    id: 'R92',
    run(test) {
      if (transitional(test)) throw new NotApplicable('the device is transitional: legacy drivers can use it')
      // §4.1.4.11 asks for an I/O BAR 0 that answers a legacy driver with device status 0, so that it gives up.
      throw new NotApplicable('optional, and a legacy driver does not match the id of a non-transitional device')
    },
  },
]

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}
