/** A device process with its keeper, for tests: killing, stopping, looking at both. Needs the build. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { ControlClient } from '../../src/client/control-client.ts'
import type { StartOptions } from '../../src/client/start.ts'
import type { DaemonConfig, ProcessInfo } from '../../src/daemon/protocol.ts'
import { TestDevice, until } from '../daemon/device.ts'

export class Supervised {
  readonly device: TestDevice

  static async start(config: Partial<DaemonConfig> = {}, options: StartOptions = {}): Promise<Supervised> {
    return new Supervised(await TestDevice.start(config, { keeper: true, ...options }))
  }

  private constructor(device: TestDevice) {
    this.device = device
  }

  /** The keeper's process id. */
  get keeper(): number {
    return this.device.started.process.pid!
  }

  async hello(): Promise<ProcessInfo> {
    const client = await ControlClient.connect(this.device.control)
    client.close()
    return client.hello
  }

  /** Kills the device process and waits for its successor. */
  async kill(): Promise<void> {
    const { devicePid, restarts } = await this.hello()
    process.kill(devicePid!, 'SIGKILL')
    await this.restarted(restarts! + 1)
  }

  async restarted(restarts: number): Promise<void> {
    await until(() =>
      this.hello().then(
        ({ restarts: now }) => now === restarts,
        () => false,
      ),
    )
  }

  /** The process that waits beside the device process, once it is there. */
  async spare(): Promise<number> {
    const { devicePid } = await this.hello()
    let found: number | undefined
    await until(() => {
      found = childrenOf(this.keeper).find((pid) => pid !== devicePid)
      return found !== undefined
    })
    return found!
  }

  /** Names of ports. */
  async ports(): Promise<(string | null)[]> {
    return (await (await this.device.client()).request('port.list', {})).map(({ name }) => name)
  }

  async logged(text: string | RegExp): Promise<void> {
    await until(() => (typeof text === 'string' ? this.device.log.includes(text) : text.test(this.device.log)))
  }

  async close(): Promise<void> {
    await this.device.close()
  }
}

export function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  return text === '' ? [] : text.split(' ').map(Number)
}

/** State of a process's main thread; undefined where there is none. */
export function stateOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat[stat.lastIndexOf(')') + 2]
  } catch {
    return undefined
  }
}

/** Stops a process, and waits until it stands. */
export async function stop(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP')
  await until(() => stateOf(pid) === 'T')
}

/** Sets the limit of open files of a process that runs. */
export function limitFiles(pid: number, soft: number): void {
  const { status, stderr } = spawnSync('prlimit', [`--pid=${pid}`, `--nofile=${soft}:`], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`prlimit: ${stderr}`)
}

export async function peer(path: string): Promise<Socket> {
  const socket = connect(path)
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}
