/** Ports and devices that come and go, as many as there can be, and options that are wrong. */
import { spawn } from 'node:child_process'
import { descriptors, grown } from '../../lab/descriptors.ts'
import { ConsoleHost } from '../../lab/console-host.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { until } from '../../lab/wait.ts'
import { check, same, type Scenario } from '../scenario.ts'
import { bye, Side, type Port } from '../side.ts'
import { MAX_PORTS } from '../world.ts'

const SLOT = 0x18
const CYCLES = 1000
/** For what QEMU does by itself. */
const QEMU_MS = 60_000

export const PLUG: readonly Scenario[] = [
  {
    id: 'hotplug',
    title: 'ports are plugged, used and unplugged, one straight after the other, 10 times',
    field: 'without_vm.hotplug, virtio_serial_hotplug_port_pci',
    async run(side) {
      for (let i = 0; i < 10; i++) {
        const port = await side.plug(i % 2 ? { id: 7 } : {})
        if (i % 2) same(/p(\d+)$/.exec(port.node)?.[1], '7', 'its number')
        await port.talk()
        await side.unplug(port)
      }
    },
  },
  {
    id: 'hotplug.busy',
    title: 'other ports come and go while one has a transfer under way; that one loses nothing',
    field: 'without_vm.hotplug',
    short: true,
    async run(side) {
      const busy = await side.plug()
      const peer = await busy.connect()
      const sent = busy.send(peer, 8 << 20, 32_768)
      sent.catch(() => {})
      for (let i = 0; i < 3; i++) {
        const port = await side.plug()
        await port.talk()
        await side.unplug(port)
      }
      await sent
    },
  },
  {
    id: 'unplug.open',
    title: 'a port is unplugged while the guest reads it: the reader ends, the number can be used again',
    field: 'virtio_serial_unplug_port_chardev_pci',
    short: true,
    async run(side) {
      for (let i = 0; i < 2; i++) {
        const port = await side.plug({ id: 9 })
        const peer = await port.connect()
        const reader = side.spawn(`cat ${port.node} > /dev/null`)
        await port.untilGuestOpen(true)
        peer.write(Buffer.alloc(200_000))
        await side.unplug(port)
        check((await reader.wait()).status !== 0, 'the reader took it for an end of the file')
        peer.destroy()
      }
      await (await side.plug({ id: 9 })).talk()
    },
  },
  {
    id: 'max',
    title: `${MAX_PORTS - 1} ports with transfers both ways at once; one more is refused`,
    field: 'without_vm.max_ports, virtio_serial_file_transfer_max_ports, virtio_serial_hotplug_max_chardevs',
    run: (side) => full(side, false),
  },
  {
    id: 'max.mixed',
    title: `${MAX_PORTS} ports, half of them consoles, with transfers at once; one more is refused`,
    field: 'max_serials_and_consoles',
    run: (side) => full(side, true),
  },
  {
    id: 'churn',
    title: '1000 ports are plugged, connected and unplugged without waiting for the guest; no descriptor stays open',
    field: 'virtio_serial_hotplug_port_pci (repeated)',
    async run(side) {
      const pid = side.host.pid ?? side.machine.pid
      const cycle = async (): Promise<void> => {
        const name = `${side.device}.churn`
        await side.host.addPort(name)
        const peer = await side.host.connect(name)
        peer.write('x')
        await side.host.removePort(name)
        await bye(peer)
      }
      for (let i = 0; i < 20; i++) await cycle()
      const before = descriptors(pid)
      for (let i = 0; i < CYCLES; i++) await cycle()
      const more = (): string[] => grown(before, descriptors(pid))
      await until(() => more().length === 0, 'descriptors are closed').catch(() => {
        throw new Error(`descriptors stay open: ${more().join(', ')}`)
      })
      await (await side.plug()).talk()
    },
  },
  {
    id: 'wrong.nr',
    title: 'a generic port on number 0, a number twice, a number too high: refused, and the device goes on',
    field: 'incorrect_options.boot_nr0, boot_nr1, virtio_serial_hotplug_existed_port_pci',
    short: true,
    async run(side) {
      const port = await side.plug({ id: 1 })
      const said: string[] = []
      for (const id of [0, 1, MAX_PORTS]) said.push(await refused(side, `${side.device}.wrong`, id))
      await port.talk()
      return said.join('; ')
    },
  },
  {
    id: 'wrong.max',
    title: 'a device with more ports than there can be does not start',
    field: 'incorrect_options.boot_too_much_ports',
    async run(side) {
      const said = await startTooLarge(side.device).catch((error: Error) => error.message)
      check(/\b511\b/.test(said), `it does not say how many ports there may be: ${said}`)
      return said
    },
  },
  {
    id: 'device.plug',
    title: 'a whole device is plugged into the running machine, and its port works',
    field: 'hotplug_virtio_pci, virtio_serial_hotplug_port_pci',
    spoils: true,
    run: (side) => plugDevice(side, async () => {}),
  },
  {
    id: 'device.unplug',
    title: 'a whole device is unplugged from the running machine, and plugged again',
    field: 'hotplug_virtio_pci',
    spoils: true,
    async run(side) {
      // QEMU 11.1 aborts when a vfio-user-pci with MSI-X goes.
      const vm = { vectors: 0 }
      for (let i = 0; i < 2; i++)
        await plugDevice(
          side,
          async () => {
            const gone = side.machine.client.nextEvent('DEVICE_DELETED', QEMU_MS)
            await side.machine.qmp('device_del', { id: 'plugged' })
            await gone
          },
          vm,
        )
      return side.device === 'ours' ? 'without MSI-X (vectors=0): with it, QEMU 11.1 aborts' : undefined
    },
  },
  {
    id: 'migrate',
    title: 'the machine migrates, offline and online',
    field: 'migration.offline, migration.online',
    never: {
      ours: 'refused with a clear error where `vmchannel qemu` starts the machine (test/cli/qemu.test.ts)',
      qemu: 'there is nothing of ours to hold it against',
    },
    run: () => Promise.reject(new Error('never run')),
  },
]

/** Every port that the device can have, a transfer each way on each, all at once. */
async function full(side: Side, mixed: boolean): Promise<string> {
  const first = mixed ? 0 : 1
  const ports: Port[] = []
  for (let id = first; id < MAX_PORTS; id++) {
    const port = await side.plug({ id, console: mixed && id % 2 === 0 })
    if (!mixed || id % 2 === 1) ports.push(port)
  }
  const count = await side.machine.sh(`cat /sys/class/virtio-ports/*/name | grep -c '^${side.device}\\.'`)
  same(Number(count), MAX_PORTS - first, 'ports in the guest')
  const said = await refused(side, `${side.device}.more`)
  await Promise.all(
    ports.map(async (port) => {
      const peer = await port.connect()
      await port.send(peer, 200_000, 4096)
      await port.receive(peer, 200_000, 4096)
    }),
  )
  return said
}

/** What was said of a port that must not be taken. */
async function refused(side: Side, name: string, id?: number): Promise<string> {
  try {
    await side.host.addPort(name, id === undefined ? {} : { id })
  } catch (error) {
    return (error as Error).message
  }
  await side.host.removePort(name)
  throw new Error(`a port was taken that cannot be: ${id === undefined ? 'one too many' : `number ${id}`}`)
}

async function startTooLarge(device: Side['device']): Promise<string> {
  if (device === 'ours') {
    const host = await ConsoleHost.start({ device, slot: SLOT, maxPorts: 512 })
    await host.close()
    return 'it started'
  }
  const { path } = await ensureQemu()
  const words = ['-machine', 'q35', '-nodefaults', '-display', 'none', '-device', 'virtio-serial-pci,max_ports=512']
  const child = spawn(path, words, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const timer = setTimeout(() => child.kill(), QEMU_MS)
  await new Promise((resolve) => child.once('close', resolve))
  clearTimeout(timer)
  return said.trim().replace(/^.*?max_ports/s, 'max_ports')
}

/** Another device of the same kind, plugged in now; it is there while `use` runs. */
async function plugDevice(side: Side, use: () => Promise<void>, vm: { vectors?: number } = {}): Promise<void> {
  const { device, machine } = side
  const host = await ConsoleHost.start({ device, slot: SLOT, id: 'plugged', maxPorts: 4, vm })
  try {
    host.attach((name, args) => machine.qmp(name, args))
    const place = { id: 'plugged', bus: `plug-${device}`, addr: '0' }
    if (device === 'qemu') await machine.qmp('device_add', { driver: 'virtio-serial-pci', max_ports: 4, ...place })
    else await machine.qmp('device_add', { ...(JSON.parse(host.args[1]!) as Record<string, unknown>), ...place })
    const other = new Side(device, machine, host, '')
    const name = `${device}.plugged`
    await (await other.plug({ name, id: 1 })).talk()
    await other.tidy()
    await use()
  } finally {
    await host.close()
  }
}
