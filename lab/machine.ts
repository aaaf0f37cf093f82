/**
 * A real QEMU with a real guest: boots a stock kernel on the lab's initramfs, runs shell commands in it, and leaves no
 * process and no file behind. Used by tests, bench and demo; knows nothing of our device, which comes in by `args`
 * or by `launcher`.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { VmchannelError } from '../src/errors.ts'
import { AgentLink, type Job, type RunResult } from './agent.ts'
import { ConsoleLog } from './console-log.ts'
import type { Kernel } from './fetch/kernel.ts'
import { guestImage, type GuestOptions } from './initramfs.ts'
import { findProgram } from './paths.ts'
import { QmpClient } from '../src/qmp/client.ts'
import { longError } from './long-error.ts'

export interface Launch {
  file: string
  args: readonly string[]
  env?: Readonly<Record<string, string>>
}

export interface MachineOptions {
  /** Path of QEMU, as `ensureQemu` gives it. */
  qemu: string
  kernel: Kernel
  /** For `-m`; default 256M. */
  memory?: string
  /** Machine type with its options, e.g. `q35,memory-backend=mem0`; default q35. */
  machineType?: string
  cpus?: number
  /** More arguments for QEMU; the function is told the machine's folder, for sockets. */
  args?: readonly string[] | ((folder: string) => readonly string[])
  /** Turns QEMU's command line into what is really started, e.g. our wrapper. */
  launcher?: (qemu: string, args: string[], folder: string) => Launch | Promise<Launch>
  /** What is in the guest. */
  guest?: GuestOptions
  /** More words for the kernel's command line. */
  append?: string
  /** Milliseconds until the agent must have answered; default 60 s. */
  bootTimeout?: number
}

const TAIL_LINES = 60
/** Process id → folder, for what must not outlive us. */
const live = new Map<number, string>()
process.on('exit', () => {
  for (const [pid, folder] of live) {
    kill(pid)
    rmSync(folder, { recursive: true, force: true })
  }
})

export class Machine {
  /** Sockets of this machine lie here; callers may put theirs beside them. Removed by close(). */
  readonly folder: string
  readonly #console = new ConsoleLog()
  readonly #servers: Server[] = []
  readonly #sockets: Socket[] = []
  readonly #bootTimeout: number
  #child: ChildProcess | undefined
  #stderr = ''
  #exited: Promise<void> = Promise.resolve()
  #failure: VmchannelError | undefined
  #agent: AgentLink | undefined
  #qmp: QmpClient | undefined
  #closing = false
  #starts = 0
  #waiting: (() => void)[] = []

  /** Starts QEMU and waits until the guest takes commands. */
  static async boot(options: MachineOptions): Promise<Machine> {
    const machine = new Machine(options)
    try {
      await machine.#start(options)
      return machine
    } catch (error) {
      await machine.close()
      throw error
    }
  }

  private constructor(options: MachineOptions) {
    this.folder = mkdtempSync(join(tmpdir(), 'vmchannel-lab-'))
    this.#bootTimeout = options.bootTimeout ?? 60_000
  }

  /** Process id of QEMU, or of what the launcher named. */
  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Kernel messages since the start. */
  get log(): string {
    return this.#console.text
  }

  /** What QEMU and the launcher wrote on stderr. */
  get stderr(): string {
    return this.#stderr
  }

  get client(): QmpClient {
    if (!this.#qmp) throw this.#gone('no QMP connection')
    return this.#qmp
  }

  /** Runs a shell command in the guest to its end. */
  run(command: string, options: { timeout?: number } = {}): Promise<RunResult> {
    return this.#guard(this.spawn(command).wait(options.timeout))
  }

  /** Like run, but insists on status 0 and gives only the output, without the last newline. */
  async sh(command: string, options: { timeout?: number } = {}): Promise<string> {
    const { status, output } = await this.run(command, options)
    if (status === 0) return output.replace(/\n$/, '')
    throw longError('ERR_VMCHANNEL_INTERNAL', `guest command ended with ${status}: ${command}\n${output}`)
  }

  /** Starts a shell command in the guest in the background. */
  spawn(command: string): Job {
    if (this.#failure) throw this.#failure
    if (!this.#agent) throw this.#gone('the guest has no agent')
    return this.#agent.start(command)
  }

  qmp(name: string, args?: Record<string, unknown>, timeout?: number): Promise<unknown> {
    return this.#guard(this.client.execute(name, args, timeout))
  }

  /** Until the kernel console says it; looks at what it has said already, too. */
  waitForText(pattern: RegExp, timeout = 30_000): Promise<RegExpExecArray> {
    return this.#guard(this.#console.waitFor(pattern, timeout))
  }

  /** Presses the reset button and waits for the guest to be ready again. */
  async reset(): Promise<void> {
    const before = this.#starts
    this.#agent?.down('reset')
    await this.qmp('system_reset')
    await this.waitForStart(before)
  }

  /** How many times an agent has started in this machine: 1 after boot. */
  get starts(): number {
    return this.#starts
  }

  /** Until the guest has started more than `count` times: for guests that reboot by themselves. */
  async waitForStart(count: number, timeout: number = this.#bootTimeout): Promise<void> {
    const deadline = Date.now() + timeout
    while (this.#starts <= count) {
      if (this.#failure) throw this.#failure
      const left = deadline - Date.now()
      if (left <= 0) throw this.#gone(`the guest did not start within ${timeout} ms`, 'ERR_VMCHANNEL_TIMEOUT')
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#waiting.push(() => (clearTimeout(timer), resolve()))
      })
    }
  }

  /** Resolves when QEMU has ended, whatever the reason. */
  exited(): Promise<void> {
    return this.#exited
  }

  /** Ends QEMU, waits for its end, removes the folder. May be called twice. */
  async close(): Promise<void> {
    this.#closing = true
    if (this.#child && this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#qmp?.execute('quit').catch(() => {})
      const timer = setTimeout(() => kill(this.pid), this.#qmp ? 3000 : 0)
      await this.#exited
      clearTimeout(timer)
    }
    for (const socket of this.#sockets) socket.destroy()
    for (const server of this.#servers) server.close()
    rmSync(this.folder, { recursive: true, force: true })
  }

  async #start(options: MachineOptions): Promise<void> {
    const image = await guestImage(options.kernel, options.guest)
    const words = ['-machine', options.machineType ?? 'q35', '-accel', 'tcg', '-m', options.memory ?? '256M']
    words.push('-smp', String(options.cpus ?? 1), '-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'none')
    words.push('-kernel', options.kernel.vmlinuz, '-initrd', image)
    // On a loaded machine the emulated timer may be too late for the kernel's test of it, and that is a panic.
    words.push('-append', `console=ttyS0 panic=0 no_timer_check ${options.append ?? ''}`.trim())
    const connect = (name: string, take: (socket: Socket) => void): Promise<void> => {
      const path = join(this.folder, `${name}.sock`)
      words.push('-chardev', `socket,id=lab-${name},path=${path}`)
      const server = createServer((socket) => {
        this.#sockets.push(socket)
        take(socket)
      })
      this.#servers.push(server)
      return new Promise((resolve) => server.listen(path, resolve))
    }
    await connect('console', (socket) => {
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => this.#hear(chunk))
    })
    await connect('agent', (socket) => {
      this.#agent = new AgentLink(socket, () => {
        this.#starts++
        this.#wake()
      })
    })
    await connect('qmp', (socket) => {
      this.#qmp = new QmpClient(socket)
      this.#qmp.negotiate().catch(() => {})
    })
    words.push('-serial', 'chardev:lab-console', '-serial', 'chardev:lab-agent')
    words.push('-mon', 'chardev=lab-qmp,mode=control')
    words.push(...(typeof options.args === 'function' ? options.args(this.folder) : (options.args ?? [])))
    const launch = await options.launcher?.(options.qemu, words, this.folder)
    this.#spawn(launch ?? { file: options.qemu, args: words })
    await this.waitForStart(0)
  }

  /** setpriv (util-linux) asks the kernel to end QEMU when we die in a way that no exit hook sees. */
  #spawn(launch: Launch): void {
    const setpriv = findProgram('setpriv')
    const words = [...(setpriv ? ['--pdeathsig', 'KILL', '--', launch.file] : []), ...launch.args]
    const child = spawn(setpriv ?? launch.file, words, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...launch.env },
    })
    this.#child = child
    child.stderr.setEncoding('utf8')
    child.stderr.on('data', (text: unknown) => (this.#stderr = (this.#stderr + String(text)).slice(-65_536)))
    if (child.pid) live.set(child.pid, this.folder)
    this.#exited = new Promise((resolve) => {
      child.on('error', (cause) => {
        this.#fail(
          new VmchannelError('ERR_VMCHANNEL_QEMU', `${launch.file} does not start: ${cause.message}`, { cause }),
        )
        resolve()
      })
      child.on('close', (status, signal) => {
        live.delete(child.pid ?? 0)
        if (!this.#closing) this.#fail(this.#gone(`QEMU has ended (${signal ?? `status ${status}`})`))
        resolve()
      })
    })
  }

  #hear(chunk: Buffer): void {
    this.#console.append(chunk)
    if (this.#failure || !this.#console.panicked) return
    // The trace follows the first line of a panic; it belongs into the message.
    setTimeout(() => this.#fail(this.#gone('the guest kernel has panicked')), 500).unref()
  }

  #fail(error: VmchannelError): void {
    this.#failure ??= error
    this.#agent?.down('the machine has failed')
    this.#console.end()
    this.#wake()
  }

  #wake(): void {
    for (const waiter of this.#waiting.splice(0)) waiter()
  }

  /** If the machine fails meanwhile, that is the better explanation; sockets close a moment before the process ends. */
  async #guard<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      const closed = error instanceof VmchannelError && error.code === 'ERR_VMCHANNEL_CLOSED'
      if (closed && !this.#agent?.open) await Promise.race([this.#exited, sleep(1000)])
      throw this.#failure ?? error
    }
  }

  #gone(what: string, code: 'ERR_VMCHANNEL_QEMU' | 'ERR_VMCHANNEL_TIMEOUT' = 'ERR_VMCHANNEL_QEMU'): VmchannelError {
    const parts = [what]
    if (this.#stderr.trim()) parts.push('--- stderr of QEMU', this.#stderr.trim().split('\n').slice(-20).join('\n'))
    parts.push(`--- last lines of the guest's console`, this.#console.tail(TAIL_LINES))
    return longError(code, parts.join('\n'))
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // gone already
  }
}
