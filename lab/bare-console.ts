/**
 * A virtio-serial device in a QEMU without a guest, with ports that come and go: QEMU's own, or ours in a process of its
 * own (an access of the driver waits for its answer, so nobody in this process may be the one who gives it). For tests of
 * our driver half, and for the conformance suite.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ControlClient } from '../src/client/control-client.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import { VmchannelError } from '../src/errors.ts'
import { BareMachine } from './bare-machine.ts'

export interface BareConsoleOptions {
  /** QEMU's device, with its properties; undefined: ours. */
  qemuDevice?: string | undefined
  maxPorts: number
  /** Of ours. */
  vectors?: number
}

export interface BarePort {
  console?: boolean
  id?: number
}

const SLOT = 4
const PATIENCE_MS = 30_000

export class BareConsole {
  readonly machine: BareMachine
  readonly slot: number = SLOT
  /** What our device process logged: warnings and worse. */
  readonly log: string[] = []
  readonly #process: StartedDevice | undefined
  #control: ControlClient | undefined

  static async start({ qemuDevice, maxPorts, vectors }: BareConsoleOptions): Promise<BareConsole> {
    if (qemuDevice !== undefined) {
      const args = ['-device', `${qemuDevice},id=vs,max_ports=${maxPorts},addr=${SLOT}`]
      return new BareConsole(await BareMachine.start({ args }), undefined)
    }
    const vm = { maxPorts, ports: [], ...(vectors === undefined ? {} : { vectors }) }
    const started = await startDevice({ vms: [vm], exitWith: 'parent', logLevel: 'warn' }, { stderr: 'pipe' })
    const args = started.vms[0]!.qemuArgs.map((word) =>
      word.replace('"driver":"vfio-user-pci"', `"driver":"vfio-user-pci","addr":"0${SLOT}.0"`),
    )
    const machine = await BareMachine.start({ args }).catch((error: unknown) => {
      started.stdin.end()
      throw error
    })
    const device = new BareConsole(machine, started)
    started.stderr!.setEncoding('utf8').on('data', (text) => device.log.push(String(text)))
    device.#control = await ControlClient.connect(started.controlSocket)
    return device
  }

  private constructor(machine: BareMachine, started: StartedDevice | undefined) {
    this.machine = machine
    this.#process = started
  }

  /** Whether it is our device. */
  get ours(): boolean {
    return this.#process !== undefined
  }
  /** Process id of the device: ours, or QEMU's. */
  get pid(): number {
    return this.#process?.pid ?? this.machine.pid
  }
  /** Whether the device and QEMU still run. */
  get alive(): boolean {
    return this.machine.running && (this.#process?.process.exitCode ?? null) === null
  }

  /** Where the host's peer of a port connects. */
  socket(name: string): string {
    return join(this.machine.folder, `${key(name)}.sock`)
  }

  async addPort(name: string, { console = false, id }: BarePort = {}): Promise<void> {
    const path = this.socket(name)
    if (this.#control) {
      const options = `${console ? ',console=on' : ''}${id === undefined ? '' : `,nr=${id}`}`
      const spec = `unix:${path},server=on,name=${name}${options}`
      await this.#control.request('port.add', { spec })
      return
    }
    const backend = { type: 'socket', data: { addr: { type: 'unix', data: { path } }, server: true, wait: false } }
    const chardev = `c-${key(name)}`
    await this.machine.qmp('chardev-add', { id: chardev, backend })
    const driver = console ? 'virtconsole' : 'virtserialport'
    const nr = id === undefined ? {} : { nr: id }
    try {
      await this.machine.qmp('device_add', { driver, id: `d-${key(name)}`, bus: 'vs.0', chardev, name, ...nr })
    } catch (error) {
      await this.machine.qmp('chardev-remove', { id: chardev })
      throw error
    }
  }

  async removePort(name: string): Promise<void> {
    if (this.#control) {
      await this.#control.request('port.remove', { port: name })
      return
    }
    await this.machine.qmp('device_del', { id: `d-${key(name)}` })
    // QEMU lets go of it a moment later.
    const remove = (): Promise<unknown> => this.machine.qmp('chardev-remove', { id: `c-${key(name)}` })
    await this.#until(() => remove().then(Boolean, () => false), `the chardev of ${name} can be removed`)
  }

  /** Until the host's side knows that the guest has the port open, or not. */
  async guestOpen(name: string, open: boolean): Promise<void> {
    const ours = async (): Promise<boolean> => {
      const ports = await this.#control!.request('port.list', {})
      return ports.find((port) => port.name === name)!.guestOpen
    }
    // Events of QEMU are held back by a clock that stands still here; the chardev's state is not.
    const qemus = async (): Promise<boolean> => {
      const chardevs = (await this.machine.qmp('query-chardev')) as { label: string; 'frontend-open': boolean }[]
      return chardevs.find(({ label }) => label === `c-${key(name)}`)!['frontend-open']
    }
    const ask = this.#control ? ours : qemus
    await this.#until(async () => (await ask()) === open, `the host sees ${name} ${open ? 'open' : 'closed'}`)
  }

  /** Only ours has a way to say it. */
  async resize(name: string, cols: number, rows: number): Promise<void> {
    await this.#control!.request('port.resize', { port: name, cols, rows })
  }

  async close(): Promise<void> {
    this.#control?.close()
    await this.machine.close()
    if (!this.#process) return
    const { process: child, stdin } = this.#process
    const ended = new Promise((resolve) => child.once('exit', resolve))
    stdin.end()
    if (child.exitCode === null && child.signalCode === null) await ended
  }

  async #until(condition: () => Promise<boolean>, what: string): Promise<void> {
    const end = Date.now() + PATIENCE_MS
    while (!(await condition())) {
      if (Date.now() > end) throw new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `timed out: ${what}`)
      await sleep(5)
    }
  }
}

/** A name may be anything; a path of a socket and an id of QEMU's may not. */
function key(name: string): string {
  return name.replaceAll(/[^\w.-]/g, '_').slice(0, 40)
}
