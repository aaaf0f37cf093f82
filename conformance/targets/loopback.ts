/** Our device in this process, with no VMM at all: a new one for each case. */

import { LoopbackMachine } from '../../src/device/attach/loopback.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import type { PortSettings } from '../../src/device/port-settings.ts'
import { findMsix, setMsix } from '../../src/driver/capabilities.ts'
import { PciRegisters, type PciAccess } from '../../src/driver/pci-registers.ts'
import { GuestMemory, type Region } from '../../src/mem/guest-memory.ts'
import { checkPortSpec } from '../../src/port-spec.ts'
import { MemoryChardev } from '../../test/support/memory-chardev.ts'
import type { HostPeer, HostSide, Interrupts, RawMachine } from '../raw/machine.ts'
import { CONSOLE_NAME, MAX_PORTS, SERIAL_NAMES, type DeviceTarget } from './target.ts'

const HOLE = 2 ** 45
const READ_ONLY = 2 ** 44

export class LoopbackTarget implements DeviceTarget {
  readonly target = 'device'
  readonly over = 'loopback'
  readonly banner = 'our device, in this process'

  async open(): Promise<RawMachine> {
    const machine = new LoopbackRawMachine()
    await machine.addPort(0, CONSOLE_NAME, true)
    for (const [i, name] of SERIAL_NAMES.entries()) await machine.addPort(i + 1, name)
    return machine
  }

  async close(): Promise<void> {
    // Nothing outlives a case.
  }
}

class LoopbackRawMachine implements RawMachine {
  readonly access: PciAccess
  readonly hole = HOLE
  readonly readOnly = READ_ONLY
  readonly patience = 5000
  readonly pid = undefined
  readonly host: HostSide
  readonly #device: ConsoleDevice
  readonly #machine: LoopbackMachine
  readonly #chardevs = new Map<number, MemoryChardev>()
  #thrown: string | undefined

  constructor() {
    const memory = new GuestMemory()
    this.#device = new ConsoleDevice({ maxPorts: MAX_PORTS, defer: setImmediate })
    const pci = new VirtioPci(this.#device, memory, { vectors: this.#device.queueCount + 1 })
    this.#machine = new LoopbackMachine(pci, memory, { schedule: () => {} })
    this.access = this.#guarded(pci)
    memory.add({ base: READ_ONLY, size: 4096, bytes: new Uint8Array(4096), address: 0, writable: false })
    this.host = {
      connect: async ({ id }) => this.#connect(id),
      addPort: (id, name) => this.addPort(id, name),
      removePort: async (id) => this.#device.removePort(id),
      resize: async (id, _, cols, rows) => this.#device.resizePort(id, cols, rows),
    }
  }

  async addPort(id: number, name: string, console = false): Promise<void> {
    // What comes from a person passes here in every door of ours.
    checkPortSpec({ chardev: 'null', name }, 'port')
    const settings: PortSettings = {
      ...{ id, name, console, policy: console ? 'drop-oldest' : 'block' },
      ...{ buffer: 65_536, onClose: undefined, drainMs: 50 },
    }
    await this.#device.addPort(settings, async (end) => {
      const chardev = new MemoryChardev(end, false)
      this.#chardevs.set(id, chardev)
      return chardev
    })
  }

  allocate(len: number): Region {
    return this.#machine.allocate(len)
  }

  recycle(): void {}

  async vfioUser(): Promise<undefined> {
    return undefined
  }

  barAddress(): undefined {
    return undefined
  }

  interrupts(vectors: number): Interrupts {
    const registers = new PciRegisters(this.access)
    const msix = findMsix(registers)
    if (msix) setMsix(registers, msix, vectors > 0)
    const { fired } = this.#machine
    const before = [...fired]
    return {
      count: (vector) => (fired[vector] ?? 0) - (before[vector] ?? 0),
      pin: () => this.#machine.level,
    }
  }

  async settle(): Promise<void> {
    for (let i = 0; i < 8; i++) await new Promise((resolve) => setImmediate(resolve))
  }

  /** Nothing that a driver does may throw; on a machine that would be the end of the device's process. */
  dead(): string | undefined {
    return this.#thrown
  }

  hangUp(): void {
    for (const chardev of this.#chardevs.values()) if (chardev.connected) hangUp(chardev)
  }

  async end(): Promise<void> {
    this.#device.close()
  }

  #connect(id: number): HostPeer | undefined {
    const chardev = this.#chardevs.get(id)
    if (!chardev) return undefined
    const from = chardev.received.length
    chardev.room = Infinity
    chardev.setConnected(true)
    return {
      received: () => Buffer.concat(chardev.received.slice(from)),
      write: (bytes) => chardev.send(bytes),
      waiting: () => chardev.waiting,
      setReading: (on) => chardev.setRoom(on ? Infinity : 0),
      close: () => hangUp(chardev),
    }
  }

  #guarded(access: PciAccess): PciAccess {
    const guard = (run: () => void): void => {
      try {
        run()
      } catch (error) {
        this.#thrown ??= `an access of the driver made the device throw: ${String(error)}`
      }
    }
    return {
      barSizes: access.barSizes,
      readConfig: (offset, out) => guard(() => access.readConfig(offset, out)),
      writeConfig: (offset, data) => guard(() => access.writeConfig(offset, data)),
      readBar: (bar, offset, out) => guard(() => access.readBar(bar, offset, out)),
      writeBar: (bar, offset, data) => guard(() => access.writeBar(bar, offset, data)),
    }
  }
}

/** A peer that goes takes with it what it has not sent. */
function hangUp(chardev: MemoryChardev): void {
  chardev.discardInput()
  chardev.setConnected(false)
}
