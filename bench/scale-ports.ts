/**
 * One device with 1, 8, 64 and 511 ports, no guest: what a byte costs on one busy port among idle ones that programs
 * have open, and with the bytes spread over all. Processor time of QEMU and, where the device is ours, of its process.
 * The limit is our own cost with one port. Of 511 ports, number 0 is the console's and stays away. QEMU's own device
 * takes part up to 31: it announces all its ports at once into 32 control buffers, and loses what does not fit.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BareMachine } from '../lab/bare-machine.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import { ConsoleDriver } from '../src/driver/console.ts'
import type { DriverPort } from '../src/driver/port.ts'
import { makeSuite, SIDES, type BenchRig, type Case, type Side, type Suite } from './case.ts'
import { cpuSeconds, ownMemory } from './cpu.ts'
import { peerProgram, startPeer } from './peer.ts'
import { Tap } from './tap.ts'
import { stopDevice, until } from './wait.ts'

const SLOT: Readonly<Record<Side, number>> = { ours: 4, qemu: 5 }
/** MSI-X vectors of both devices. */
const VECTORS = 4
const BYTES = 2 ** 30
const SIZE = 32 << 10
const POOL_LIMIT = 400 << 20
/** Ports of QEMU's own device that its announcements reach the driver of. */
const QEMU_PORTS_MAX = 31

interface End {
  port: DriverPort
  tap: Tap
}

/** A machine with both devices, each with so many ports. */
class Wide {
  readonly #machine: BareMachine
  readonly #device: StartedDevice
  readonly #folder: string
  readonly #program: string
  readonly #ends: Readonly<Record<Side, End[]>>

  static async start(count: number): Promise<Wide> {
    const folder = await mkdtemp(join(tmpdir(), 'vmchannel-wide-'))
    const numbers = Array.from({ length: count }, (_, i) => i + 1)
    const ports = numbers.map((i) => `unix:${join(folder, `ours.${i}`)},name=p${i}`)
    const device = await startDevice({
      stateDir: join(folder, 'state'),
      vms: [{ maxPorts: count + 1, vectors: VECTORS, ports }],
      exitWith: 'parent',
      logLevel: 'warn',
    })
    const [option, value] = device.vms[0]!.qemuArgs as [string, string]
    const args = [option, JSON.stringify({ ...(JSON.parse(value) as object), addr: `0${SLOT.ours}.0` })]
    const both = count <= QEMU_PORTS_MAX
    if (both) args.push(...theirs(folder, numbers))
    try {
      const machine = await BareMachine.start({ memory: 1 << 30, args })
      const ends = {
        ours: await openAll(machine, 'ours', count),
        qemu: both ? await openAll(machine, 'qemu', count) : [],
      }
      return new Wide(machine, device, folder, await peerProgram(), ends)
    } catch (error) {
      await stopDevice(device, folder)
      throw error
    }
  }

  private constructor(
    machine: BareMachine,
    device: StartedDevice,
    folder: string,
    program: string,
    ends: Record<Side, End[]>,
  ) {
    this.#machine = machine
    this.#device = device
    this.#folder = folder
    this.#program = program
    this.#ends = ends
  }

  /** Bytes of the device process. */
  get memory(): number {
    return ownMemory(this.#device.pid)
  }

  /** Processor seconds a gigabyte, over the first `busy` ports. */
  async cost(side: Side, busy: number): Promise<number> {
    const ends = this.#ends[side].slice(0, busy)
    await until(() => ends.every(({ port }) => !port.hostOpen))
    const each = Math.ceil(BYTES / busy / SIZE) * SIZE
    const finish = await startPeer(this.#program, join(this.#folder, `${side}.%d`), 'sinks', each * busy, busy)
    await until(() => ends.every(({ port }) => port.hostOpen))
    const pids = [this.#machine.pid, ...(side === 'ours' ? [this.#device.pid] : [])]
    const used = (): number => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
    const before = used()
    for (const { tap } of ends) tap.send(each, SIZE)
    await finish()
    return (used() - before) / ((each * busy) / 1e9)
  }

  async close(): Promise<void> {
    await this.#machine.close()
    await stopDevice(this.#device, this.#folder)
  }
}

/**
 * QEMU's own device, only where it takes part: its queues have an eventfd each, which QEMU's main loop asks after at
 * every turn, whoever the turn is for.
 */
function theirs(folder: string, numbers: readonly number[]): string[] {
  const ports = numbers.flatMap((i) => [
    ...['-chardev', `socket,id=c${i},path=${join(folder, `qemu.${i}`)},server=on,wait=off`],
    ...['-device', `virtserialport,chardev=c${i},nr=${i},name=p${i}`],
  ])
  const options = `vectors=${VECTORS},max_ports=${numbers.length + 1},addr=${SLOT.qemu}`
  return ['-device', `virtio-serial-pci,disable-legacy=on,${options}`, ...ports]
}

async function openAll(machine: BareMachine, side: Side, count: number): Promise<End[]> {
  const { transport, pool } = machine.qtest.attach({ slot: SLOT[side] }, { limit: POOL_LIMIT })
  const few = { receiveBuffers: 2, receiveLen: 4096, transmitBuffers: 8, transmitLen: SIZE }
  const driver = new ConsoleDriver(transport, pool, { ...few, defer: setImmediate })
  driver.start()
  await until(() => driver.ports.length >= count)
  return driver.ports
    .toSorted((a, b) => a.id - b.id)
    .map((port) => ({ port, tap: port.attach((end) => new Tap(end)) as Tap }))
}

/** Machines are made when they are first asked for, and kept: they cost nothing while others are measured. */
class Rig implements BenchRig {
  readonly banner = 'many ports, no guest, our driver half'
  readonly #machines = new Map<number, Wide>()

  async wide(count: number): Promise<Wide> {
    const wide = this.#machines.get(count) ?? (await Wide.start(count))
    this.#machines.set(count, wide)
    return wide
  }

  async close(): Promise<void> {
    for (const wide of this.#machines.values()) await wide.close()
  }
}

function portsCase(ports: number, spread: boolean): Case<Rig> {
  const id = `scale.ports.${ports}${spread ? '.spread' : ''}`
  const count = Math.min(ports, 510)
  return {
    ...{ ids: [id], title: spread ? `${ports} ports, all busy` : `1 busy port of ${ports}`, unit: 's/GB' },
    sides: count > QEMU_PORTS_MAX ? SIDES.slice(0, 1) : SIDES,
    run: async (rig, side) => ({ [id]: await (await rig.wide(count)).cost(side, spread ? count : 1) }),
    limit: async (rig) => (ports === 1 ? {} : { [id]: await (await rig.wide(1)).cost('ours', 1) }),
  }
}

/** What an open port costs in memory while nothing moves; each run is another pair of devices. */
const IDLE: Case<Rig> = {
  ...{ ids: ['scale.ports.idle'], title: 'memory of an open, idle port', unit: 'KiB' },
  ...{ sides: SIDES.slice(0, 1), pairsMax: 3, warmUp: false },
  async run() {
    const one = await Wide.start(1)
    const many = await Wide.start(510)
    const kib = (many.memory - one.memory) / 509 / 1024
    await one.close()
    await many.close()
    return { 'scale.ports.idle': kib }
  },
}

export const SCALE_PORTS: Suite = makeSuite(
  [
    ...[1, 8, 64, 511].map((ports) => portsCase(ports, false)),
    ...[8, 64, 511].map((ports) => portsCase(ports, true)),
    IDLE,
  ],
  () => Promise.resolve(new Rig()),
)
