/**
 * How `vmchannel serve` stays beside what it has started, and ends it. What it has started is the supervisor, and it
 * knows the device process only where that has outlived its supervisor: then over the control socket. Made by serve.ts.
 */

import type { ChildProcess } from 'node:child_process'
import { ControlClient } from '../client/control-client.ts'
import type { StartedDevice } from '../client/start.ts'
import { VmchannelError } from '../errors.ts'

/** A supervisor takes four seconds at most: three for its device process to end, one for the kernel to end it. */
const SUPERVISOR_MS = 5000
/** The same for a device process without a supervisor. */
const END_MS = 3000
const RETRY_MS = 100

export class Served {
  readonly #device: StartedDevice
  readonly #supervised: boolean
  readonly #warn: (text: string) => void
  #asked = false
  /** The device process that has no supervisor any more. */
  #alone: ControlClient | undefined
  #escalation: NodeJS.Timeout | undefined

  constructor(device: StartedDevice, supervised: boolean, warn: (text: string) => void) {
    this.#device = device
    this.#supervised = supervised
    this.#warn = warn
  }

  /** Resolves when nothing of it is left: with undefined where `stop` was called, else with what ended it. */
  async ended(): Promise<string | undefined> {
    const { status, signal } = await exitOf(this.#device.process)
    clearTimeout(this.#escalation)
    let how = signal ?? `status ${status}`
    // A supervisor that was told to end has ended its device process before; not one that was killed.
    if (this.#supervised && (!this.#asked || signal !== null)) {
      for (let client = await this.#reach(); client; client = await this.#reach()) {
        if (!this.#asked && !this.#alone)
          this.#warn(
            `the supervisor (process ${this.#device.process.pid}) has ended (${how}): the device process ` +
              `${client.hello.devicePid ?? client.hello.pid} goes on without one, and nothing takes over if it dies`,
          )
        this.#alone = client
        if (this.#asked) this.#endAlone(client)
        await new Promise<void>((resolve) => (client.closed ? resolve() : client.onClose(() => resolve())))
        clearTimeout(this.#escalation)
        how = 'without a supervisor'
      }
    }
    return this.#asked ? undefined : how
  }

  /** Ends it, whatever it does, within a few seconds. */
  stop(): void {
    if (this.#asked) return
    this.#asked = true
    const { process: child } = this.#device
    if (this.#alone) return this.#endAlone(this.#alone)
    child.kill('SIGTERM')
    // One that was stopped hears nothing before.
    child.kill('SIGCONT')
    this.#escalation = setTimeout(() => child.kill('SIGKILL'), SUPERVISOR_MS)
  }

  /** The connection stands for the process: as long as it is there, its number is nobody else's. */
  #endAlone(client: ControlClient): void {
    const pid = client.hello.devicePid ?? client.hello.pid
    signal(pid, 'SIGTERM')
    signal(pid, 'SIGCONT')
    this.#escalation = setTimeout(() => !client.closed && signal(pid, 'SIGKILL'), END_MS)
  }

  /** The device process, where there is one: also one that does not answer for a while. */
  async #reach(): Promise<ControlClient | undefined> {
    for (;;) {
      try {
        return await ControlClient.connect(this.#device.controlSocket, { timeout: END_MS })
      } catch (error) {
        const busy = error instanceof VmchannelError && error.code === 'ERR_VMCHANNEL_TIMEOUT'
        // Its lifeline ends with us: one that hears anything ends then.
        if (!busy || this.#asked) return undefined
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
  }
}

function exitOf(child: ChildProcess): Promise<{ status: number | null; signal: string | null }> {
  if (child.exitCode !== null || child.signalCode !== null)
    return Promise.resolve({ status: child.exitCode, signal: child.signalCode })
  return new Promise((resolve) => child.once('exit', (status, by) => resolve({ status, signal: by })))
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It has just ended.
  }
}
