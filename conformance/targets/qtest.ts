/**
 * Devices in a QEMU without a guest, reached over qtest: ours over vfio-user, QEMU's own, and anybody's that QEMU can be
 * given on its command line. One machine for all cases, and another when a case has killed it.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { BareMachine } from '../../lab/bare-machine.ts'
import { ConsoleHost } from '../../lab/console-host.ts'
import { enableMsix } from '../../src/driver/attach/qtest/msix.ts'
import type { QtestMachine } from '../../src/driver/attach/qtest/machine.ts'
import type { PciPlace } from '../../src/driver/attach/qtest/pci.ts'
import { findMsix, setMsix } from '../../src/driver/capabilities.ts'
import { PciRegisters, type PciAccess } from '../../src/driver/pci-registers.ts'
import { startDevice, type StartedDevice } from '../../src/client/start.ts'
import { VmchannelError } from '../../src/errors.ts'
import { DMA_PAGE_SIZE, roundUp } from '../../src/mem/dma-pool.ts'
import type { Region } from '../../src/mem/guest-memory.ts'
import {
  PCI_DEVICE_ID_VIRTIO_BASE,
  PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE,
  PCI_VENDOR_ID_VIRTIO,
  VIRTIO_ID_CONSOLE,
} from '../../src/spec/pci.ts'
import type { HostPeer, HostSide, Interrupts, RawMachine, VfioUserEnd } from '../raw/machine.ts'
import { connectPeer } from './socket-peer.ts'
import { CONSOLE_NAME, MAX_PORTS, SERIAL_NAMES, VECTORS, type DeviceTarget } from './target.ts'

/** For rings and buffers of one case. */
const ARENA_LEN = 64 << 20
/** Above all memory and PCI windows of the machine. */
const HOLE = 2 ** 38
/** The last page below 4 GiB is firmware. */
const READ_ONLY = 2 ** 32 - DMA_PAGE_SIZE
const SETTLE_ROUNDS = 4
const STATUS = 0x14
const SLOT = 4

/** A machine that runs, and what the host can do with its device. */
interface Running {
  readonly machine: BareMachine
  readonly place: PciPlace
  readonly host: Omit<HostSide, 'connect'>
  /** Path of the host's end of a port. */
  socket(port: { id: number; name: string | undefined }): string | undefined
  readonly pid: number
  vfioUser(): Promise<VfioUserEnd | undefined>
  alive(): boolean
  /** Ports of a case's own are gone when it ends. */
  tidy(): Promise<void>
  close(): Promise<void>
}

export interface QtestTargetOptions {
  readonly target: string
  readonly over: string
  readonly what: string
  readonly patience: number
}

export class QtestTarget implements DeviceTarget {
  readonly target: string
  readonly over: string
  banner = ''
  readonly #options: QtestTargetOptions
  readonly #start: () => Promise<Running>
  #running: Running | undefined
  #machine: QtestRawMachine | undefined

  constructor(options: QtestTargetOptions, start: () => Promise<Running>) {
    this.target = options.target
    this.over = options.over
    this.#options = options
    this.#start = start
  }

  async open(): Promise<RawMachine> {
    if (this.#running && !this.#running.alive()) await this.close()
    if (!this.#running || !this.#machine) {
      this.#running = await this.#start()
      this.banner = `${this.#options.what}, QEMU ${this.#running.machine.qemuVersion}`
      this.#machine = new QtestRawMachine(this.#running, this.#options.patience)
    }
    return this.#machine
  }

  async close(): Promise<void> {
    await this.#running?.close()
    this.#running = this.#machine = undefined
  }
}

class QtestRawMachine implements RawMachine {
  readonly access: PciAccess
  readonly hole = HOLE
  readonly readOnly = READ_ONLY
  readonly patience: number
  readonly pid: number
  readonly host: HostSide
  readonly #running: Running
  readonly #qtest: QtestMachine
  readonly #arena: Region
  readonly #registers: PciRegisters
  readonly #status: { bar: number; offset: number }
  #used = 0
  #peers: HostPeer[] = []
  #release: () => void = () => {}

  constructor(running: Running, patience: number) {
    this.#running = running
    this.patience = patience
    this.pid = running.pid
    this.#qtest = running.machine.qtest
    this.#arena = this.#qtest.ram.allocate(ARENA_LEN)
    this.access = this.#qtest.bus.open(running.place)
    this.#registers = new PciRegisters(this.access)
    this.#status = commonConfig(this.#registers)
    this.host = { ...running.host, connect: (port) => this.#connect(port) }
  }

  vfioUser(): Promise<VfioUserEnd | undefined> {
    return this.#running.vfioUser()
  }

  recycle(): void {
    this.#used = 0
  }

  allocate(len: number): Region {
    const size = roundUp(len, DMA_PAGE_SIZE)
    if (this.#used + size > ARENA_LEN)
      throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `a case takes more than ${ARENA_LEN} bytes of memory`)
    const offset = this.#used
    this.#used += size
    const bytes = this.#arena.bytes.subarray(offset, offset + size).fill(0)
    return { base: this.#arena.base + offset, size, bytes, address: 0, writable: true }
  }

  barAddress(bar: number): number {
    return this.#qtest.bus.barAddress(this.#running.place, bar)
  }

  interrupts(vectors: number): Interrupts {
    this.#release()
    const counts = new Map<number, number>()
    const msix = findMsix(this.#registers)
    const { doorbell } = this.#qtest
    if (msix && doorbell && vectors > 0)
      this.#release = enableMsix(this.#registers, msix, doorbell, vectors, (vector, times) =>
        counts.set(vector, (counts.get(vector) ?? 0) + times),
      )
    else {
      if (msix) setMsix(this.#registers, msix, false)
      this.#release = () => {}
    }
    // Watched from the first case with a pin on: QEMU tells of every change.
    const lines = vectors > 0 ? undefined : this.#qtest.lines
    return { count: (vector) => counts.get(vector) ?? 0, pin: () => lines?.level ?? false }
  }

  /** A read comes after all writes before it; what QEMU does about an eventfd is a turn or two later. */
  async settle(): Promise<void> {
    for (let i = 0; i < SETTLE_ROUNDS; i++) {
      this.#registers.bar8(this.#status.bar, this.#status.offset)
      await sleep(1)
    }
  }

  dead(): string | undefined {
    if (this.#running.alive()) return undefined
    return `the device is dead: ${this.#running.machine.stderr.trim().slice(-300) || 'it said nothing'}`
  }

  hangUp(): void {
    for (const peer of this.#peers.splice(0)) peer.close()
  }

  async end(): Promise<void> {
    this.hangUp()
    this.#release()
    this.#release = () => {}
    if (!this.#running.alive()) return
    await this.#running.tidy()
    await this.settle()
  }

  async #connect(port: { id: number; name: string | undefined }): Promise<HostPeer | undefined> {
    const path = this.#running.socket(port)
    if (path === undefined) return undefined
    const peer = await connectPeer(path)
    this.#peers.push(peer)
    return peer
  }
}

/** Where the status register is; a device whose capabilities are beyond finding has to be told of by its cases. */
function commonConfig(registers: PciRegisters): { bar: number; offset: number } {
  for (let at = registers.config8(0x34) & ~3, i = 0; at >= 0x40 && i < 48; at = registers.config8(at + 1) & ~3, i++)
    if (registers.config8(at) === 9 && registers.config8(at + 3) === 1)
      return { bar: registers.config8(at + 4), offset: registers.config32(at + 8) + STATUS }
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', 'the device has no common configuration capability')
}

/** Ours over vfio-user, or QEMU's own, with the ports of the presets. */
function preset(device: 'ours' | 'qemu'): () => Promise<Running> {
  return async () => {
    const qemuDevice = `virtio-serial-pci,disable-legacy=on,vectors=${VECTORS}`
    const host = await ConsoleHost.start({
      device,
      slot: SLOT,
      qemuDevice,
      maxPorts: MAX_PORTS,
      vm: { vectors: VECTORS },
    })
    let machine: BareMachine | undefined
    let server: StartedDevice | undefined
    const close = async (): Promise<void> => {
      server?.stdin.end()
      await machine?.close()
      await host.close()
    }
    try {
      const bare = (machine = await BareMachine.start({ args: host.args }))
      host.attach((name, args) => bare.qmp(name, args))
      await host.addPort(CONSOLE_NAME, { console: true, id: 0 })
      for (const [i, name] of SERIAL_NAMES.entries()) await host.addPort(name, { id: i + 1 })
      const ids = new Map([CONSOLE_NAME, ...SERIAL_NAMES].map((name, id) => [id, name]))
      const added = new Set<string>()
      return {
        machine: bare,
        place: { slot: SLOT },
        pid: host.pid ?? bare.pid,
        async vfioUser() {
          if (device !== 'ours') return undefined
          const vms = [{ maxPorts: MAX_PORTS, ports: [] }]
          server ??= await startDevice({ vms, exitWith: 'parent', logLevel: 'error' }, { stderr: 'ignore' })
          return { path: server.vms[0]!.socket, pid: server.pid }
        },
        socket: ({ id, name }) => host.socket(ids.get(id) ?? name ?? `${id}`),
        host: {
          async addPort(id, name) {
            await host.addPort(name, { id })
            added.add(name)
          },
          async removePort(_, name) {
            await host.removePort(name)
            added.delete(name)
          },
          resize:
            device === 'ours'
              ? async (id, name, cols, rows) => void (await host.resize(ids.get(id) ?? name!, cols, rows))
              : undefined,
        },
        async tidy() {
          for (const name of added) await host.removePort(name)
          added.clear()
        },
        alive: () => bare.running && !host.ended && (server?.process.exitCode ?? null) === null,
        close,
      }
    } catch (error) {
      await close()
      throw error
    }
  }
}

const VFIO_USER: QtestTargetOptions = {
  ...{ target: 'device', over: 'vfio-user', what: 'our device in a process of its own', patience: 10_000 },
}
const QEMU: QtestTargetOptions = {
  ...{ target: 'qemu', over: 'qtest', what: "QEMU's own virtio-serial-pci", patience: 2000 },
}

export function vfioUserTarget(): QtestTarget {
  return new QtestTarget(VFIO_USER, preset('ours'))
}

export function qemuTarget(): QtestTarget {
  return new QtestTarget(QEMU, preset('qemu'))
}

/** Whatever these words put into a QEMU; ports by name or number → the unix socket where the host's end listens. */
export function otherTarget(
  args: readonly string[],
  sockets: ReadonlyMap<string, string>,
  patience: number,
  vfioUser?: string,
): QtestTarget {
  const ids = [PCI_DEVICE_ID_VIRTIO_BASE + VIRTIO_ID_CONSOLE, PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE]
  return new QtestTarget({ target: 'other', over: 'qtest', what: args.join(' '), patience }, async () => {
    const machine = await BareMachine.start({ args })
    const [place] = machine.qtest.bus.find(ids.map((id) => id * 65_536 + PCI_VENDOR_ID_VIRTIO))
    if (!place) {
      await machine.close()
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', 'there is no virtio console on bus 0 of this QEMU', {
        hint: 'Give QEMU the device as --qemu-args="-device virtio-serial-pci,…", not behind a bridge.',
      })
    }
    return {
      machine,
      place,
      pid: machine.pid,
      vfioUser: async () => (vfioUser === undefined ? undefined : { path: vfioUser, pid: undefined }),
      socket: ({ id, name }) => sockets.get(`${id}`) ?? (name === undefined ? undefined : sockets.get(name)),
      host: { addPort: undefined, removePort: undefined, resize: undefined },
      tidy: async () => {},
      alive: () => machine.running,
      close: () => machine.close(),
    }
  })
}
