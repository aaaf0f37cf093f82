/** The console device: its configuration, the emergency console, sizes (§5.3.4, §5.3.5). */

import {
  CONSOLE_CONFIG_EMERG_WR,
  CONSOLE_CONFIG_MAX_NR_PORTS,
  CONSOLE_CONFIG_ROWS,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  CONSOLE_BAD_ID,
  receiveqOf,
  transmitqOf,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_RESIZE,
} from '../../src/spec/console.ts'
import {
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_F_VERSION_1,
} from '../../src/spec/features.ts'
import {
  PCI_DEVICE_ID,
  PCI_DEVICE_ID_VIRTIO_BASE,
  PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE,
} from '../../src/spec/pci.ts'
import type { HostPeer } from '../raw/machine.ts'
import { check, same, type Case } from '../case.ts'
import { BASIC } from '../raw/driver.ts'
import type { DeviceTest } from '../raw/test.ts'

/** A peer of the console; the driver is brought up for it and the device reset again. */
async function consolePeer(test: DeviceTest): Promise<HostPeer> {
  test.needs(VIRTIO_CONSOLE_F_EMERG_WRITE, 'EMERG_WRITE')
  await test.up()
  const peer = await test.connect(test.consolePort())
  await test.settle()
  return peer
}

async function emergency(test: DeviceTest, peer: HostPeer, text: string): Promise<void> {
  const from = peer.received().length
  for (const byte of Buffer.from(text)) test.registers.setConfig32(CONSOLE_CONFIG_EMERG_WR, byte)
  await test.arrives(peer, text, from)
}

export const CONSOLE_CASES: readonly Case<DeviceTest>[] = [
  {
    id: 'R101',
    async run(test) {
      const id = test.registers.pci.config16(PCI_DEVICE_ID)
      check(
        id === PCI_DEVICE_ID_VIRTIO_BASE + 3 || id === PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE,
        `device id 0x${id.toString(16)} is no console's`,
      )
      if (!test.offers(VIRTIO_CONSOLE_F_MULTIPORT))
        return check(test.registers.read('num_queues') >= 2, 'a console has two queues')
      test.start({ queues: [CONTROL_RECEIVEQ, CONTROL_TRANSMITQ] })
      test.postControl()
      await test.say(CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1)
      await test.until(() => (test.hear(), test.heard.length > 0), 'an answer in queue 2 to DEVICE_READY in queue 3')
      for (const queue of [receiveqOf(test.maxPorts() - 1), transmitqOf(test.maxPorts() - 1)])
        check(test.sizeMax(queue) > 0, `queue ${queue} of port ${test.maxPorts() - 1} is not there`)
    },
  },
  {
    id: 'R102',
    run(test) {
      const { registers } = test
      const ports = registers.config(CONSOLE_CONFIG_MAX_NR_PORTS, 4)
      if (test.offers(VIRTIO_CONSOLE_F_MULTIPORT)) check(ports >= 1 && ports <= 0x8000, `max_nr_ports is ${ports}`)
      const bytes = [0, 1, 2, 3].map((i) => registers.config(CONSOLE_CONFIG_MAX_NR_PORTS + i, 1))
      same(bytes, [ports & 0xff, (ports >> 8) & 0xff, (ports >> 16) & 0xff, ports >>> 24], 'max_nr_ports byte by byte')
      const sizes = registers.config(0, 2) + 65_536 * registers.config(CONSOLE_CONFIG_ROWS, 2)
      same(registers.config(0, 4), sizes, 'cols and rows in one access')
    },
  },
  {
    id: 'R103',
    async run(test) {
      test.needs(VIRTIO_CONSOLE_F_EMERG_WRITE, 'EMERG_WRITE')
      test.reset()
      for (const byte of Buffer.from('before any driver')) test.registers.setConfig32(CONSOLE_CONFIG_EMERG_WR, byte)
      await test.settle()
      same(test.status, 0, 'status after writes to emerg_wr')
      await test.works()
    },
  },
  {
    id: 'R104',
    async run(test) {
      const peer = await consolePeer(test)
      await emergency(test, peer, 'emergency')
      const from = peer.received().length
      // Only the low byte counts.
      test.registers.setConfig32(CONSOLE_CONFIG_EMERG_WR, 0x1234_5600 + 0x21)
      await test.arrives(peer, '!', from)
    },
  },
  {
    id: 'R105',
    async run(test) {
      const peer = await consolePeer(test)
      check(!test.negotiated(VIRTIO_CONSOLE_F_EMERG_WRITE), 'this driver has accepted EMERG_WRITE')
      await emergency(test, peer, 'not accepted')
      test.reset()
      await emergency(test, peer, 'after a reset')
      test.negotiate(VIRTIO_F_VERSION_1)
      await emergency(test, peer, 'while negotiating')
    },
  },
  {
    id: 'R106',
    async run(test) {
      test.needs(VIRTIO_CONSOLE_F_SIZE, 'SIZE')
      const { resize } = test.machine.host
      if (!resize) return test.unable('give a console a size')
      await test.up()
      const port = test.consolePort()
      const before = test.configInterrupts()
      await resize(port.id, port.name, 101, 43)
      await test.until(
        () => test.registers.config(0, 4) === 101 + 43 * 65_536,
        'cols 101 and rows 43 in the configuration',
      )
      await test.until(() => test.configInterrupts() > before, 'a configuration change notification')
    },
  },
  {
    id: 'R115',
    async run(test) {
      test.needs(VIRTIO_CONSOLE_F_SIZE, 'SIZE')
      const { resize } = test.machine.host
      if (!resize) return test.unable('give a console a size')
      await test.up({ features: BASIC })
      const port = test.consolePort()
      await test.connect(port)
      await resize(port.id, port.name, 0x0102, 0x0304)
      const sizes = () => test.heard.filter(({ event, id }) => event === VIRTIO_CONSOLE_RESIZE && id === port.id)
      await test.until(() => (test.hear(), sizes().some(({ tail }) => tail.includes(2))), 'RESIZE')
      same(
        [...sizes().at(-1)!.tail],
        [0x02, 0x01, 0x04, 0x03],
        'what follows the header of RESIZE for 258 cols and 772 rows',
      )
    },
  },
  {
    id: 'S17',
    run(test) {
      const { device } = test.registers.structures
      if (!device) return
      const { access } = test.registers
      const room = access.barSizes[device.bar]! - device.offset
      for (const [at, len] of [
        [12, 4],
        [16, 4],
        [64, 4],
        [0xffc, 4],
        [10, 4],
        [11, 2],
      ] as const) {
        if (at + len > room) continue
        const out = new Uint8Array(len)
        access.readBar(device.bar, device.offset + at, out)
        const beyond = out.subarray(Math.max(0, 12 - at))
        // Ones are what a bus gives for nobody: no byte of anything else either.
        check(
          beyond.every((byte) => byte === 0) || beyond.every((byte) => byte === 0xff),
          `configuration at ${at} reads as ${Buffer.from(out).toString('hex')}`,
        )
      }
    },
  },
]
