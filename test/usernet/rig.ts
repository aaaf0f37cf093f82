/** Both ends of a link in one process, joined by the host end's own socket: QEMU and slirp left out. */
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ConsoleDevice } from '../../src/device/console.ts'
import type { Port } from '../../src/device/port.ts'
import type { PortSettings } from '../../src/device/port-settings.ts'
import type { DriverPort } from '../../src/driver/port.ts'
import type { Log } from '../../src/log.ts'
import { GuestEnd } from '../../src/usernet/guest-end.ts'
import { UsernetServer } from '../../src/usernet/host-end.ts'
import { MemoryChardev } from '../support/memory-chardev.ts'

const PORT = {
  name: undefined,
  console: false,
  policy: 'block',
  buffer: 65_536,
  onClose: undefined,
  drainMs: 50,
} as const satisfies Partial<PortSettings>

export class LinkRig {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'vmch-net-'))
  readonly path: string = join(this.folder, 's')
  readonly log: string[] = []
  /** "attach", "detach", "guest-open 1", "named 1" … */
  readonly events: string[] = []
  readonly device: ConsoleDevice
  readonly server: UsernetServer
  readonly #sockets: Socket[] = []
  readonly #ends: GuestEnd[] = []

  constructor(maxPorts = 31) {
    const log = this.logger()
    this.device = new ConsoleDevice({
      maxPorts,
      log,
      defer: setImmediate,
      onEvent: ({ event, port }) => void this.events.push(`${event} ${port.id}`),
    })
    this.server = new UsernetServer({
      path: this.path,
      device: this.device,
      log,
      onAttach: () => void this.events.push('attach'),
      onDetach: () => void this.events.push('detach'),
    })
  }

  logger(): Log {
    const note = (level: string) => (message: string) => void this.log.push(`${level}: ${message}`)
    return { error: note('error'), warn: note('warn'), info: note('info'), debug: () => {} }
  }

  async host(
    settings: Partial<Omit<PortSettings, 'id'>> & { id?: number } = {},
    connected = true,
  ): Promise<{ port: Port; chardev: MemoryChardev }> {
    let chardev: MemoryChardev | undefined
    const port = await this.device.addPort({ ...PORT, ...settings }, async (end) => {
      chardev = new MemoryChardev(end, connected)
      return chardev
    })
    return { port, chardev: chardev! }
  }

  async socket(): Promise<Socket> {
    const socket = connect(this.path)
    this.#sockets.push(socket)
    socket.on('error', () => {})
    await new Promise<void>((resolve) => socket.once('connect', resolve))
    return socket
  }

  async guest(socket?: Socket): Promise<GuestEnd> {
    const end = await GuestEnd.start(socket ?? (await this.socket()), {
      log: this.logger(),
      onPort: ({ event, port }) => void this.events.push(`guest: ${event} ${port.id}`),
    })
    this.#ends.push(end)
    return end
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.server.close()
    this.device.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** A port of the guest end, once it is there; opened by a program of the test. */
export async function program(
  end: GuestEnd,
  id: number,
  connected = true,
): Promise<{ port: DriverPort; chardev: MemoryChardev }> {
  await until(() => end.driver?.port(id) !== undefined, `the guest has port ${id}`)
  const port = end.driver!.port(id)!
  return { port, chardev: port.attach((own) => new MemoryChardev(own, connected)) as MemoryChardev }
}

export async function until(condition: () => boolean, what: string, ms = 20_000): Promise<void> {
  for (const deadline = Date.now() + ms; !condition();) {
    if (Date.now() > deadline) throw new Error(`timed out: ${what}`)
    await sleep(2)
  }
}

/** Calls at the beginning of each turn of the event loop; the result ends that. */
export function everyTurn(call: () => void): () => void {
  let on = true
  const tick = (): void => {
    call()
    if (on) setImmediate(tick)
  }
  setImmediate(tick)
  return () => void (on = false)
}
