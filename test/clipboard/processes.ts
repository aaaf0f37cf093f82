/**
 * Desktops on this machine, of Debian's programs: X servers, a Wayland compositor, and a guest's spice-vdagent with no
 * guest around it: its daemon opens a socket as it opens a port.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { chmodSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { until } from '../cli/run.ts'

/** Starts programs, and ends them all. */
export class Processes {
  readonly folder: string
  readonly #tools: string
  readonly #children: ChildProcess[] = []
  readonly #servers: Server[] = []

  constructor(folder: string, tools: string) {
    this.folder = folder
    this.#tools = tools
  }

  get path(): string {
    return `${this.#tools}:${process.env['PATH']}`
  }

  start(name: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    const { DISPLAY: _, WAYLAND_DISPLAY: __, ...rest } = process.env
    const child = spawn(join(this.#tools, name), args, {
      cwd: this.folder,
      env: { ...rest, PATH: this.path, ...env },
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    })
    child.on('error', () => {})
    this.#children.push(child)
    return child
  }

  /** A display of its own; its environment. */
  async xServer(): Promise<NodeJS.ProcessEnv> {
    const child = this.start('Xvfb', ['-displayfd', '3', '-screen', '0', '640x480x24', '-noreset'])
    const [number] = (await once(child.stdio[3] as Readable, 'data')) as [Buffer]
    return { PATH: this.path, DISPLAY: `:${number.toString().trim()}`, WAYLAND_DISPLAY: undefined }
  }

  /** sway, which has data-control; its environment. */
  async compositor(): Promise<NodeJS.ProcessEnv> {
    const runtime = join(this.folder, 'run')
    mkdirSync(runtime)
    chmodSync(runtime, 0o700)
    const headless = { WLR_BACKENDS: 'headless', WLR_RENDERER: 'pixman', WLR_LIBINPUT_NO_DEVICES: '1' }
    this.start('sway', ['-c', '/dev/null'], { XDG_RUNTIME_DIR: runtime, ...headless })
    const display = await until('the compositor listens', () =>
      readdirSync(runtime).find((name) => /^wayland-\d+$/.test(name)),
    )
    return { PATH: this.path, XDG_RUNTIME_DIR: runtime, WAYLAND_DISPLAY: display, DISPLAY: undefined }
  }

  listen(path: string, take: (socket: Socket) => void): Promise<void> {
    const server = createServer({ allowHalfOpen: false }, take)
    this.#servers.push(server)
    return new Promise((done) => server.listen(path, done))
  }

  async end(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
    const gone = once(child, 'exit')
    child.kill(signal)
    const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
    await gone
    clearTimeout(timer)
  }

  async close(): Promise<void> {
    for (const server of this.#servers) server.close()
    for (const child of this.#children.toReversed()) await this.end(child)
  }
}

/** A port as a virtio-serial device has it: the guest's end stays when the host's goes, and hears of it. */
class PortBetween {
  #guest: Socket | undefined
  #host: Socket | undefined

  static async listen(processes: Processes, guest: string, host: string): Promise<PortBetween> {
    const port = new PortBetween()
    await processes.listen(guest, (socket) => {
      port.#guest = socket
      port.#pass(socket, () => port.#host)
      port.#host?.resume()
      socket.on('close', () => port.#guest === socket && (port.#guest = undefined))
    })
    await processes.listen(host, (socket) => {
      if (port.#host) return void socket.destroy()
      port.#host = socket
      port.#pass(socket, () => port.#guest)
      port.#guest?.resume()
      socket.on('close', () => {
        port.#host = undefined
        port.#guest?.destroy()
        port.#guest = undefined
      })
    })
    return port
  }

  #pass(from: Socket, to: () => Socket | undefined): void {
    from.on('error', () => {})
    from.on('data', (bytes) => {
      const other = to()
      if (!other || other.write(bytes)) return
      from.pause()
      other.once('drain', () => from.resume())
    })
    if (!to()) from.pause()
  }
}

/** Both halves of spice-vdagent on a display of their own. */
export class LocalAgent {
  readonly env: NodeJS.ProcessEnv
  /** Where the host's end of the port is. */
  readonly socket: string
  readonly #processes: Processes
  #daemon: ChildProcess | undefined
  #agent: ChildProcess | undefined

  static async start(processes: Processes): Promise<LocalAgent> {
    const agent = new LocalAgent(processes, await processes.xServer())
    await PortBetween.listen(processes, agent.#path('guest'), agent.socket)
    await agent.begin()
    return agent
  }

  private constructor(processes: Processes, env: NodeJS.ProcessEnv) {
    this.#processes = processes
    this.env = env
    this.socket = this.#path('host')
  }

  #path(name: string): string {
    return join(this.#processes.folder, `${name}.sock`)
  }

  async begin(): Promise<void> {
    const [session, state] = [this.#path('session'), join(this.#processes.folder, 'vdagentd.pid')]
    // -X: no logind here; -f -u: no mouse either.
    const words = ['-x', '-X', '-f', '-u', '/dev/null', '-s', this.#path('guest'), '-S', session]
    this.#daemon = this.#processes.start('spice-vdagentd', words, { ...this.env, PIDFILE: state })
    await until('vdagentd listens', () => existsSync(session))
    this.#agent = this.#processes.start('spice-vdagent', ['-x', '-s', '/dev/null', '-S', session], this.env)
  }

  /** As a crash would. */
  async end(): Promise<void> {
    await this.#processes.end(this.#agent!, 'SIGKILL')
    await this.#processes.end(this.#daemon!)
  }
}
