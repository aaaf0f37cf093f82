/**
 * A real QEMU with a real guest on our device, the device in the test's own process so that tests can look inside.
 * Host peers are plain unix socket clients.
 */
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { ensureKernel, type KernelSeries } from '../../lab/fetch/kernel.ts'
import { ovmfArgs } from '../../lab/fetch/ovmf.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine, type MachineOptions } from '../../lab/machine.ts'
import { portNode } from '../../lab/ports.ts'
import { until } from '../../lab/wait.ts'
import { openChardev } from '../../src/chardev/registry.ts'
import { listenVfioUser, type VfioUserServer } from '../../src/device/attach/vfio-user/server.ts'
import type { ConsoleOptions } from '../../src/device/console-options.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import type { Port } from '../../src/device/port.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { parsePortSpec } from '../../src/port-spec.ts'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'

export { readBytes, until } from '../../lab/wait.ts'

export interface RigOptions extends Pick<MachineOptions, 'append' | 'guest' | 'machineType' | 'cpus' | 'bootTimeout'> {
  args?: readonly string[]
  /** Boots by OVMF. */
  ovmf?: boolean
  kernel?: KernelSeries
  ports?: string[]
  device?: ConsoleOptions
  vectors?: number
  /** Default 256M. */
  memory?: string
  /** Runs before the machine is started, with all ports there. */
  beforePower?: (rig: Rig) => Promise<void>
}

export class Rig {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'vmchannel-test-'))
  readonly device: ConsoleDevice
  readonly log: string[] = []
  machine!: Machine
  server!: VfioUserServer
  readonly #vectors: number | undefined
  readonly #sockets: Socket[] = []

  static async start(options: RigOptions = {}): Promise<Rig> {
    const rig = new Rig(options)
    try {
      await rig.#boot(options)
      return rig
    } catch (error) {
      await rig.close()
      throw error
    }
  }

  private constructor(options: RigOptions) {
    const note = (level: string) => (message: string) => void this.log.push(`${level}: ${message}`)
    const log = { error: note('error'), warn: note('warn'), info: note('info'), debug: () => {} }
    this.device = new ConsoleDevice({ log, defer: setImmediate, ...options.device })
    this.#vectors = options.vectors
  }

  async #boot(options: RigOptions): Promise<void> {
    const memory = new GuestMemory()
    const pci = new VirtioPci(this.device, memory, this.#vectors === undefined ? {} : { vectors: this.#vectors })
    const path = join(this.folder, 'vfio-user.sock')
    const say = (message: string) => void this.log.push(message)
    const log = { error: say, warn: say, info: say, debug: () => {} }
    this.server = await listenVfioUser({ path, memory, function: pci, log })
    for (const spec of options.ports ?? []) await this.addPort(spec)
    await options.beforePower?.(this)
    const qemu = await ensureQemu()
    const kernel = await ensureKernel(options.kernel ?? '6.1')
    const { append, bootTimeout, guest, cpus, memory: size = '256M' } = options
    this.machine = await Machine.boot({
      qemu: qemu.path,
      kernel,
      memory: size,
      machineType: `${options.machineType ?? 'q35'},memory-backend=mem0`,
      args: [
        ...['-object', `memory-backend-memfd,id=mem0,size=${size},share=on`],
        ...['-device', JSON.stringify({ driver: 'vfio-user-pci', id: 'vmch', socket: { type: 'unix', path } })],
        ...(options.args ?? []),
        ...(options.ovmf ? await ovmfArgs(this.folder) : []),
      ],
      ...(append === undefined ? {} : { append }),
      ...(bootTimeout === undefined ? {} : { bootTimeout }),
      ...(guest === undefined ? {} : { guest }),
      ...(cpus === undefined ? {} : { cpus }),
    })
  }

  /** Adds a port; `unix` alone becomes a socket in the rig's folder that `connect(name)` finds. */
  addPort(text: string): Promise<Port> {
    const words = text.split(',')
    const name = words.find((word) => word.startsWith('name='))?.slice(5) ?? `unnamed-${this.device.ports.length}`
    if (words[0] === 'unix') words[0] = `unix:${this.socket(name)},server=on`
    const spec = parsePortSpec(words.join(','), 'port')
    const settings = {
      ...{ id: spec.id, name: spec.name, console: spec.console ?? false, policy: spec.policy ?? 'block' },
      ...{ buffer: spec.buffer ?? 65_536, onClose: spec.onClose, drainMs: spec.drainMs ?? 1000 },
    } as const
    return this.device.addPort(settings, (end) => openChardev(spec.chardev, end))
  }

  socket(name: string): string {
    return join(this.folder, `${name}.sock`)
  }

  port(name: string): Port {
    return this.device.ports.find((port) => port.settings.name === name)!
  }

  /** A host peer of a port, connected and seen by the device. */
  async connect(name: string): Promise<Socket> {
    const socket = connect({ path: this.socket(name), allowHalfOpen: true })
    this.#sockets.push(socket)
    socket.on('error', () => {})
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    await until(() => this.port(name).hostConnected, `${name}: the device sees its peer`)
    return socket
  }

  /** The guest's character device of a named port; waits for it to appear. */
  node(name: string): Promise<string> {
    return portNode(this.machine, name)
  }

  /** Ends all host peers; a test that failed must not hold the port for the next one. */
  async hangUp(): Promise<void> {
    for (const socket of this.#sockets.splice(0)) socket.destroy()
    const gone = (): boolean =>
      this.device.ports.every((port) => !port.chardev?.label.startsWith('unix') || !port.hostConnected)
    await until(gone, 'all host peers are gone')
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await this.machine?.close()
    this.server?.close()
    this.device.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
