/**
 * A real QEMU with no guest in it, its processor and memory in our hands: for tests and measurements of our driver half
 * against real devices. Leaves no process and no file behind.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { QtestMachine, type QtestMachineOptions } from '../src/driver/attach/qtest/machine.ts'
import { VmchannelError } from '../src/errors.ts'
import { ensureQemu } from './fetch/qemu.ts'
import { findProgram } from './paths.ts'
import { QmpClient } from '../src/qmp/client.ts'

export interface BareMachineOptions extends Omit<QtestMachineOptions, 'folder'> {
  /** Devices and the like; the function is told the machine's folder, for sockets. */
  args?: readonly string[] | ((folder: string) => readonly string[])
}

/** Process id → folder, for what must not outlive us. */
const live = new Map<number, string>()
process.on('exit', () => {
  for (const [pid, folder] of live) {
    kill(pid)
    rmSync(folder, { recursive: true, force: true })
  }
})

export class BareMachine {
  /** Removed by close(). */
  readonly folder: string = mkdtempSync(join(tmpdir(), 'vmchannel-bare-'))
  readonly qtest: QtestMachine
  qemuVersion = ''
  stderr = ''
  readonly #server: Server
  #child: ChildProcess | undefined
  #exited: Promise<void> = Promise.resolve()
  #qmp: QmpClient | undefined

  /** Starts QEMU and waits until its devices are there. */
  static async start(options: BareMachineOptions = {}): Promise<BareMachine> {
    const machine = new BareMachine(options)
    try {
      await machine.#start(options)
      return machine
    } catch (error) {
      await machine.close()
      throw error
    }
  }

  private constructor({ args: _args, ...options }: BareMachineOptions) {
    this.qtest = new QtestMachine({ ...options, folder: this.folder })
    this.#server = createServer()
  }

  /** Process id of QEMU. */
  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Whether QEMU still runs. */
  get running(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null
  }

  get client(): QmpClient {
    return this.#qmp!
  }

  qmp(name: string, args?: Record<string, unknown>): Promise<unknown> {
    return this.#qmp!.execute(name, args)
  }

  /** Ends QEMU and removes the folder. May be called twice. */
  async close(): Promise<void> {
    if (this.#child) kill(this.pid)
    await this.#exited
    this.#child = undefined
    this.#qmp?.close()
    this.#server.close()
    this.qtest.close()
    rmSync(this.folder, { recursive: true, force: true })
  }

  async #start(options: BareMachineOptions): Promise<void> {
    const { path, version } = await ensureQemu()
    this.qemuVersion = version
    this.#server.listen(join(this.folder, 'qmp.sock'))
    await once(this.#server, 'listening')
    const more = typeof options.args === 'function' ? options.args(this.folder) : (options.args ?? [])
    this.#spawn(path, [...this.qtest.args(3), '-qmp', `unix:${this.folder}/qmp.sock`, '-no-user-config', ...more])
    const up = once(this.#server, 'connection').then(async ([socket]) => {
      this.#qmp = new QmpClient(socket as Socket)
      await Promise.all([this.#qmp.negotiate(), this.qtest.ready()])
    })
    // Sockets close a moment before the process ends, and its last words say more.
    const failed = up.catch(async (error: unknown) => {
      await Promise.race([this.#exited, sleep(1000)])
      throw error
    })
    await Promise.race([this.#exited.then(() => Promise.reject(this.#ended())), failed])
  }

  /** setpriv (util-linux) asks the kernel to end QEMU when we die in a way that no exit hook sees. */
  #spawn(file: string, args: string[]): void {
    const setpriv = findProgram('setpriv')
    const words = [...(setpriv ? ['--pdeathsig', 'KILL', '--', file] : []), ...args]
    const child = spawn(setpriv ?? file, words, { stdio: ['ignore', 'ignore', 'pipe', this.qtest.ram.fd] })
    this.#child = child
    if (child.pid) live.set(child.pid, this.folder)
    child.stderr!.setEncoding('utf8')
    child.stderr!.on('data', (text: unknown) => (this.stderr = (this.stderr + String(text)).slice(-65_536)))
    this.#exited = new Promise((resolve) => {
      child.on('error', () => resolve())
      child.on('close', () => {
        live.delete(child.pid ?? 0)
        resolve()
      })
    })
  }

  #ended(): VmchannelError {
    return new VmchannelError('ERR_VMCHANNEL_QEMU', `QEMU has ended: ${this.stderr.trim() || 'it said nothing'}`)
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // gone already
  }
}
