/** How our driver takes a device into use: features, status, configuration, queues (§2.1, §2.2, §2.5, §3.1). */

import { DRIVER_FEATURES } from '../../src/driver/console-options.ts'
import { resetDevice, type Transport } from '../../src/driver/transport.ts'
import {
  featureNames,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../src/spec/features.ts'
import type { Access, FakePair } from '../../test/support/fake-console.ts'
import { check, same, type Case } from '../case.ts'
import { COMMON_BAR, DEVICE_CONFIG, ISR, NOTIFY, type DriverTest } from './test.ts'

const STATUS = 0x14
const FAILED = 0x80
const GUEST_FEATURE = 0x0c
const QUEUE_SELECT = 0x16
const QUEUE_SIZE = 0x18
const QUEUE_ENABLE = 0x1c
/** device_feature, num_queues, config_generation, queue_notify_off, queue_notify_data. */
const READ_ONLY = [0x04, 0x12, 0x15, 0x1e, 0x38]
const COMMON_LEN = 0x3c
const ALL = VIRTIO_F_VERSION_1 | 7n | VIRTIO_RING_F_EVENT_IDX | VIRTIO_RING_F_INDIRECT_DESC

const written = (accesses: readonly Access[], offset: number): number[] =>
  accesses.filter((a) => a.kind === 'write' && a.bar === COMMON_BAR && a.offset === offset).map(({ value }) => value)

function status({ pci }: FakePair): number {
  const out = new Uint8Array(1)
  pci.readBar(COMMON_BAR, STATUS, out)
  return out[0]!
}

/** Starting is refused, and the device told so. */
function fails(pair: FakePair, what: string): void {
  let thrown = false
  try {
    pair.driver.start()
  } catch {
    thrown = true
  }
  check(thrown, `${what}: the driver starts all the same`)
  check((status(pair) & FAILED) !== 0, `${what}: the device is not told FAILED`)
  check((status(pair) & 4) === 0, `${what}: DRIVER_OK is set`)
}

export const START_CASES: readonly Case<DriverTest>[] = [
  {
    id: 'R3',
    run(test) {
      const { accesses } = test.started()
      const list = written(accesses, STATUS)
      same(list, [0, 1, 3, 11, 15], 'writes to device_status')
      const pair = test.make((fake) => (fake.acceptable = false))
      fails(pair, 'features refused')
      pair.fake.acceptable = true
      pair.accesses.length = 0
      pair.driver.start()
      same(written(pair.accesses, STATUS)[0], 0, 'the first write to device_status after FAILED')
    },
  },
  {
    id: 'R4',
    async run(test) {
      let told = 0
      const { fake, driver } = test.open(undefined, { onNeedsReset: () => void told++ })
      fake.host.needsReset()
      await test.settle()
      check(told > 0, 'DEVICE_NEEDS_RESET is told to nobody')
      driver.restart()
      check(driver.running && fake.started, 'a restart does not mend it')
    },
  },
  {
    id: 'R5',
    run(test) {
      for (const offered of [VIRTIO_F_VERSION_1, VIRTIO_F_VERSION_1 | 2n, ALL, ALL & ~VIRTIO_CONSOLE_F_SIZE]) {
        const { fake } = test.started((f) => (f.features = offered))
        same(featureNames(fake.accepted & ~offered), [], 'accepted and not offered')
      }
    },
  },
  {
    id: 'R6',
    run(test) {
      for (const missing of [
        VIRTIO_CONSOLE_F_SIZE,
        VIRTIO_CONSOLE_F_MULTIPORT,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_RING_F_INDIRECT_DESC,
      ]) {
        const { driver } = test.started((fake) => (fake.features = ALL & ~missing))
        check(driver.running, `the driver does not start without ${featureNames(missing).join()}`)
      }
      fails(
        test.make((fake) => (fake.features = 3n)),
        'no VERSION_1',
      )
      fails(
        test.make((fake) => (fake.acceptable = false)),
        'features refused',
      )
    },
  },
  {
    id: 'R7',
    run(test) {
      const known = DRIVER_FEATURES | VIRTIO_F_VERSION_1
      for (const offered of [
        (1n << 64n) - 1n,
        VIRTIO_F_VERSION_1 | (1n << 41n) | (1n << 63n),
        VIRTIO_F_VERSION_1 | 8n,
      ]) {
        const { fake, driver } = test.started((f) => (f.features = offered))
        check(driver.running, 'the driver does not start where unknown bits are offered')
        same(featureNames(fake.accepted & ~known), [], 'unknown bits accepted')
      }
    },
  },
  {
    id: 'R13',
    run() {
      let reads = 0
      const transport = {
        writeStatus: () => {},
        readStatus: () => (++reads < 50 ? 15 : 0),
      } as unknown as Transport
      resetDevice(transport)
      same(reads, 50, 'reads of device_status until it is 0')
    },
  },
  { id: 'R19', na: 'our driver never resets a single queue' },
  { id: 'R21', na: 'our driver never resets a single queue' },
  {
    id: 'R15',
    run(test) {
      const { accesses } = test.started((fake) => {
        fake.features = VIRTIO_F_VERSION_1
        fake.queueCount = 2
      })
      const inConfig = (a: Access): boolean =>
        a.bar === COMMON_BAR && a.offset >= DEVICE_CONFIG && a.offset < DEVICE_CONFIG + 0x1000
      same(accesses.filter(inConfig), [], 'accesses to fields of features that are not offered')
      const full = test.started((fake) => (fake.features = ALL))
      same(
        full.accesses.filter((a) => inConfig(a) && a.kind === 'write'),
        [],
        'writes to the device configuration',
      )
    },
  },
  {
    id: 'R22',
    run(test) {
      const { accesses } = test.started()
      const steps = accesses.flatMap(({ kind, bar, offset, value }) => {
        if (bar !== COMMON_BAR) return []
        if (kind === 'write' && offset === STATUS) return [`status ${value}`]
        if (kind === 'read' && offset === STATUS) return ['read status']
        if (kind === 'read' && offset === 0x04) return ['offered']
        if (kind === 'write' && offset === GUEST_FEATURE) return ['accepted']
        if (kind === 'write' && offset === QUEUE_ENABLE) return ['queue']
        if (kind === 'write' && offset >= NOTIFY) return ['notify']
        if (kind === 'write' && offset >= DEVICE_CONFIG) return ['configuration']
        return []
      })
      const short = steps.filter((step, i) => step !== 'read status' && step !== steps[i - 1])
      const expected = [
        'status 0',
        'status 1',
        'status 3',
        'offered',
        'accepted',
        'status 11',
        'queue',
        'status 15',
        'notify',
      ]
      same(short, expected, 'the steps of the start')
      same(steps[steps.indexOf('status 11') + 1], 'read status', 'the step after FEATURES_OK')
    },
  },
  {
    id: 'R23',
    run(test) {
      const { fake } = test.started()
      same(fake.early, [], 'queues notified before DRIVER_OK')
      fails(
        test.make((f) => (f.maxPorts = 0)),
        'max_nr_ports 0',
      )
      fails(
        test.make((f) => (f.queueCount = 2)),
        'no control queues',
      )
    },
  },
  { id: 'R25', na: 'SUSPEND is of virtio 1.4, and our driver does not accept it' },
  {
    id: 'R26',
    run(test) {
      for (const size of [1, 2, 64, 256]) {
        const { fake } = test.started((f) => (f.size = size))
        for (const [queue, { desc, avail, used }] of fake.places.entries()) {
          check(desc % 16 === 0, `queue ${queue}: descriptor table at 0x${desc.toString(16)}`)
          check(avail % 2 === 0, `queue ${queue}: available ring at 0x${avail.toString(16)}`)
          check(used % 4 === 0, `queue ${queue}: used ring at 0x${used.toString(16)}`)
        }
      }
    },
  },
  {
    id: 'R42',
    run(test) {
      const { fake, driver } = test.open()
      driver.restart()
      for (const [queue, { usedFlags }] of fake.places.entries())
        same(usedFlags, 0, `used.flags of queue ${queue} when it is enabled`)
    },
  },
  {
    id: 'R80',
    run(test) {
      const { accesses, fake } = test.open()
      const writes = accesses.filter((a) => a.kind === 'write' && a.bar === COMMON_BAR && a.offset < COMMON_LEN)
      same(
        writes.filter(({ offset }) => READ_ONLY.includes(offset)),
        [],
        'writes to read-only registers',
      )
      for (const size of written(accesses, QUEUE_SIZE))
        check(size > 0 && (size & (size - 1)) === 0, `queue_size ${size}`)
      check(
        written(accesses, QUEUE_ENABLE).every((value) => value === 1),
        '0 is written to queue_enable',
      )
      const live = new Set<number>()
      let selected = 0
      for (const { offset, value } of writes) {
        if (offset === STATUS && value === 0) live.clear()
        else if (offset === QUEUE_SELECT) selected = value
        else if (offset === QUEUE_ENABLE) live.add(selected)
        else if (offset >= QUEUE_SIZE)
          check(!live.has(selected), `register 0x${offset.toString(16)} of a live queue is written`)
      }
      check(
        fake.places.every(({ size }) => size <= 64),
        'a queue is larger than its maximum',
      )
    },
  },
  {
    id: 'R98',
    run(test) {
      check((test.started().fake.accepted & VIRTIO_F_VERSION_1) !== 0n, 'VERSION_1 is not accepted')
    },
  },
  {
    id: 'R99',
    run(test) {
      // What the attachment with an IOMMU (VFIO) asks the driver to accept.
      const { fake } = test.started((f) => (f.features = ALL | VIRTIO_F_ACCESS_PLATFORM), {
        features: DRIVER_FEATURES | VIRTIO_F_ACCESS_PLATFORM,
      })
      check((fake.accepted & VIRTIO_F_ACCESS_PLATFORM) !== 0n, 'ACCESS_PLATFORM is not accepted')
    },
  },
  {
    id: 'R83',
    async run(test) {
      const { fake, accesses, chardev } = test.open()
      accesses.length = 0
      fake.send(4, Buffer.from('an interrupt'))
      await test.settle()
      same(chardev.text, 'an interrupt', 'what came')
      same(
        accesses.filter((a) => a.bar === COMMON_BAR && a.offset === ISR),
        [],
        'accesses to the ISR with MSI-X',
      )
    },
  },
  {
    id: 'R89',
    run(test) {
      const { accesses } = test.open()
      const notifications = accesses.filter((a) => a.bar === COMMON_BAR && a.offset >= NOTIFY)
      check(notifications.length > 0, 'no queue was notified')
      for (const { kind, len, value, offset } of notifications) {
        same([kind, len], ['write', 2], 'the access of a notification')
        same(value, (offset - NOTIFY) / 4, 'the value of a notification, and its place')
      }
    },
  },
]
