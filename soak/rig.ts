/** What a soak runs on: a stock guest on our device, whose process has a keeper; host peers are plain sockets. */

import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureKernel } from '../lab/fetch/kernel.ts'
import { ensureQemu } from '../lab/fetch/qemu.ts'
import { Machine } from '../lab/machine.ts'
import { until } from '../lab/wait.ts'
import { ControlClient } from '../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'

const MEMORY = '256M'
const LOG_MAX = 64 << 10

export class SoakRig {
  readonly machine: Machine
  readonly device: StartedDevice
  readonly #folder: string
  readonly #log: () => string
  readonly #peers = new Set<Socket>()

  static async start(ports: readonly string[]): Promise<SoakRig> {
    const [qemu, kernel] = [await ensureQemu(), await ensureKernel('6.1')]
    const folder = mkdtempSync(join(tmpdir(), 'vmchannel-soak-'))
    const vms = [{ ports: ports.map((name) => `unix:${folder}/${name}.sock,name=${name}`) }]
    const config = { stateDir: join(folder, 'state'), vms, exitWith: 'vmm', logLevel: 'info' } as const
    const device = await startDevice(config, { detached: true, keeper: true, stderr: 'pipe' })
    let log = ''
    device.stderr!.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-LOG_MAX)))
    try {
      const machine = await Machine.boot({
        qemu: qemu.path,
        kernel,
        memory: MEMORY,
        machineType: 'q35,memory-backend=mem',
        args: ['-object', `memory-backend-memfd,id=mem,size=${MEMORY},share=on`, ...device.vms[0]!.qemuArgs],
      })
      return new SoakRig(machine, device, folder, () => log)
    } catch (error) {
      device.process.kill('SIGTERM')
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
  }

  private constructor(machine: Machine, device: StartedDevice, folder: string, log: () => string) {
    this.machine = machine
    this.device = device
    this.#folder = folder
    this.#log = log
  }

  /** The end of the device's log. */
  get log(): string {
    return this.#log()
  }

  socket(name: string): string {
    return join(this.#folder, `${name}.sock`)
  }

  async ask<T>(work: (client: ControlClient) => Promise<T>): Promise<T> {
    const client = await ControlClient.connect(this.device.controlSocket)
    try {
      return await work(client)
    } finally {
      client.close()
    }
  }

  /** A host peer that the guest has heard of: it reads what comes only where the caller does. */
  async peer(name: string): Promise<Socket> {
    const socket = connect({ path: this.socket(name), allowHalfOpen: true })
    this.#peers.add(socket)
    socket.on('error', () => {}).once('close', () => this.#peers.delete(socket))
    await once(socket, 'connect')
    const seen = (): Promise<boolean> =>
      this.ask(async (client) => {
        const ports = await client.request('port.list', {})
        return ports.some((port) => port.name === name && port.hostConnected)
      })
    await until(seen, `${name}: the device sees its peer`)
    return socket
  }

  /** Resident memory of the process that runs the device, without the guest's own; how often it was started again. */
  async deviceState(): Promise<{ pid: number; restarts: number; rss: number }> {
    const { devicePid, pid, restarts = 0 } = await this.ask(async (client) => client.hello)
    const running = devicePid ?? pid
    const status = readFileSync(`/proc/${running}/status`, 'utf8')
    const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)![1])
    return { pid: running, restarts, rss: (kib('RssAnon') + kib('RssFile')) * 1024 }
  }

  async close(): Promise<void> {
    await this.machine.close()
    for (const socket of this.#peers) socket.destroy() // half open, they outlive the device
    if (this.device.process.exitCode === null && this.device.process.signalCode === null)
      await Promise.race([once(this.device.process, 'exit'), new Promise((resolve) => setTimeout(resolve, 10_000))])
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
