/** Both halves in one process: a console device on a loopback machine, and our driver in front of it. */

import { setTimeout as sleep } from 'node:timers/promises'
import { LoopbackMachine, type LoopbackOptions } from '../../src/device/attach/loopback.ts'
import type { ConsoleOptions } from '../../src/device/console-options.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci, type VirtioPciOptions } from '../../src/device/pci/virtio-pci.ts'
import type { PortEvent, PortSettings } from '../../src/device/port-settings.ts'
import type { Port } from '../../src/device/port.ts'
import { attachLoopback, type LoopbackDriverOptions } from '../../src/driver/attach/loopback.ts'
import type { DriverOptions } from '../../src/driver/console-options.ts'
import { ConsoleDriver } from '../../src/driver/console.ts'
import type { DriverPortEvent } from '../../src/driver/port-settings.ts'
import type { DriverPort } from '../../src/driver/port.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { MemoryChardev } from './memory-chardev.ts'

export interface PairOptions {
  device?: ConsoleOptions
  pci?: VirtioPciOptions
  machine?: LoopbackOptions
  attach?: LoopbackDriverOptions
  driver?: DriverOptions
}

export const PORT_DEFAULTS: Omit<PortSettings, 'id'> = {
  name: undefined,
  console: false,
  policy: 'block',
  buffer: 65536,
  onClose: undefined,
  drainMs: 50,
}

export class Pair {
  readonly device: ConsoleDevice
  readonly pci: VirtioPci
  readonly machine: LoopbackMachine
  readonly memory: GuestMemory = new GuestMemory()
  readonly driver: ConsoleDriver
  readonly log: string[] = []
  /** "guest-open 1", in order; and the driver's. */
  readonly events: string[] = []
  readonly driverEvents: string[] = []

  constructor(options: PairOptions = {}) {
    const note = (level: string) => (message: string) => void this.log.push(`${level}: ${message}`)
    const log = { error: note('error'), warn: note('warn'), info: note('info'), debug: () => {} }
    this.device = new ConsoleDevice({
      log,
      defer: setImmediate,
      onEvent: ({ event, port }: PortEvent) => void this.events.push(`${event} ${port.id}`),
      ...options.device,
    })
    this.pci = new VirtioPci(this.device, this.memory, { vectors: this.device.queueCount + 1, ...options.pci })
    this.machine = new LoopbackMachine(this.pci, this.memory, options.machine)
    const { transport, pool } = attachLoopback(this.machine, options.attach)
    this.driver = new ConsoleDriver(transport, pool, {
      log,
      defer: setImmediate,
      onPort: ({ event, port }: DriverPortEvent) => void this.driverEvents.push(`${event} ${port.id}`),
      ...options.driver,
    })
  }

  /** Adds a port to the device with a chardev of the test behind it. */
  async host(
    settings: Partial<Omit<PortSettings, 'id'>> & { id?: number } = {},
    connected = true,
  ): Promise<{ port: Port; chardev: MemoryChardev }> {
    let chardev: MemoryChardev | undefined
    const port = await this.device.addPort({ ...PORT_DEFAULTS, ...settings }, async (end) => {
      chardev = new MemoryChardev(end, connected)
      return chardev
    })
    return { port, chardev: chardev! }
  }

  /** Opens a port in the guest with a chardev of the test in front of it. */
  guest(id: number, connected = true): { port: DriverPort; chardev: MemoryChardev } {
    const port = this.driver.port(id)
    if (!port) throw new Error(`the driver has no port ${id}`)
    const chardev = port.attach((end) => new MemoryChardev(end, connected)) as MemoryChardev
    return { port, chardev }
  }
}

/** Lets both halves run until they have had every chance to. */
export async function settle(turns = 5): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
}

export async function until(condition: () => boolean, what: string, ms = 30_000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await sleep(1)
  }
}
