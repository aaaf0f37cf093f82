/** A device process for tests, with what is needed to look at it from outside. Needs the build. */
import { readdirSync, readFileSync } from 'node:fs'
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { ControlClient } from '../../src/client/control-client.ts'
import { startDevice, type StartedDevice, type StartOptions } from '../../src/client/start.ts'
import type { DaemonConfig } from '../../src/daemon/protocol.ts'
import { TempDir } from './temp-dir.ts'

export class TestDevice {
  readonly temp = new TempDir()
  readonly stateDir: string = join(this.temp.path, 'state')
  started!: StartedDevice
  log = ''
  readonly #clients: ControlClient[] = []

  static async start(config: Partial<DaemonConfig> = {}, options: StartOptions = {}): Promise<TestDevice> {
    const device = new TestDevice()
    const whole: DaemonConfig = {
      stateDir: device.stateDir,
      vms: [{ ports: [] }],
      exitWith: 'parent',
      logLevel: 'info',
      ...config,
    }
    device.started = await startDevice(whole, { stderr: 'pipe', ...options })
    device.started.stderr?.setEncoding('utf8').on('data', (text: string) => (device.log += text))
    return device
  }

  get pid(): number {
    return this.started.pid
  }

  get control(): string {
    return this.started.controlSocket
  }

  async client(): Promise<ControlClient> {
    const client = await ControlClient.connect(this.control)
    this.#clients.push(client)
    return client
  }

  /** A bare connection to the control socket. */
  async raw(): Promise<RawClient> {
    const socket = createConnection(this.control)
    await once(socket, 'connect')
    return new RawClient(socket)
  }

  get fds(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length
  }

  /** Kilobytes, by name of /proc/PID/status. */
  memory(name: string): number {
    return statusOf(this.pid, name)
  }

  get cpu(): number {
    return cpuOf(this.pid)
  }

  async exit(): Promise<number | null> {
    const child = this.started.process
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    return child.exitCode
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.close()
    this.started?.stdin.end()
    const timer = setTimeout(() => this.started.process.kill('SIGKILL'), 3000)
    if (this.started) await this.exit()
    clearTimeout(timer)
    this.temp.remove()
  }
}

/** Says anything, hears lines. */
export class RawClient {
  readonly socket: Socket
  readonly lines: string[] = []
  #text = ''
  ended = false

  constructor(socket: Socket) {
    this.socket = socket
    socket.setEncoding('utf8')
    socket.on('error', () => {})
    socket.on('close', () => (this.ended = true))
    socket.on('data', (chunk: string) => {
      const parts = (this.#text + chunk).split('\n')
      this.#text = parts.pop()!
      this.lines.push(...parts)
    })
  }

  async replies(count: number): Promise<Record<string, unknown>[]> {
    await until(() => this.lines.length >= count || this.ended, 5000)
    return this.lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  async end(): Promise<void> {
    await until(() => this.ended, 5000)
  }
}

export async function until(condition: () => boolean | Promise<boolean>, timeout = 30_000): Promise<void> {
  const deadline = Date.now() + timeout
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${timeout} ms: ${String(condition)}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Kilobytes, by name of /proc/PID/status. */
export function statusOf(pid: number, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

/** Milliseconds of CPU since its start. */
export function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const [user, system] = stat.slice(stat.lastIndexOf(')')).split(' ').slice(12, 14).map(Number) as [number, number]
  return (user + system) * 10
}
