/** Guests with character devices: those of the kernel's driver, and those of ours over UIO or VFIO. */
import type { Job } from '../lab/agent.ts'
import { GUEST_COMMAND } from '../lab/guest-image.ts'
import type { Machine } from '../lab/machine.ts'
import { portNode } from '../lab/ports.ts'
import { startVmtest, vmtest } from '../lab/vmtest.ts'
import { until } from '../lab/wait.ts'
import type { GuestSide } from './sides.ts'

const IO_MS = 120_000

abstract class CharacterGuest implements GuestSide {
  protected readonly machine: Machine

  constructor(machine: Machine) {
    this.machine = machine
  }

  abstract names(): Promise<string[]>
  abstract id(name: string): Promise<number>
  abstract restartDriver(): Promise<void>
  /** The character device. */
  protected abstract node(name: string): Promise<string>

  async send(name: string, total: number, size: number): Promise<string> {
    return (await vmtest(this.machine, 'source', [await this.node(name), total, size], IO_MS)).sha256
  }

  async receive(name: string, total: number): Promise<() => Promise<string>> {
    const sink = await startVmtest(this.machine, 'sink', [await this.node(name), total])
    return async () => (await sink.result(IO_MS)).sha256
  }

  async hold(name: string): Promise<() => Promise<void>> {
    const { job } = await startVmtest(this.machine, 'hold', [await this.node(name), 0])
    return async () => {
      job.kill(9)
      await job.wait()
    }
  }

  async hostOpen(name: string): Promise<boolean> {
    return !(await vmtest(this.machine, 'poll', [await this.node(name), 0])).revents.includes('HUP')
  }

  async resetMachine(): Promise<void> {
    await this.machine.reset()
  }
}

export class LinuxGuest extends CharacterGuest {
  readonly #bdf: string

  constructor(machine: Machine, bdf: string) {
    super(machine)
    this.#bdf = bdf
  }

  async names(): Promise<string[]> {
    const text = await this.machine.sh('cat /sys/class/virtio-ports/*/name 2>/dev/null || true')
    return text.split('\n').filter(Boolean).toSorted()
  }

  /** /dev/vport0p5. */
  async id(name: string): Promise<number> {
    return Number(/p(\d+)$/.exec(await this.node(name))?.[1])
  }

  async restartDriver(): Promise<void> {
    const driver = '/sys/bus/pci/drivers/virtio-pci'
    await this.machine.sh(`echo ${this.#bdf} > ${driver}/unbind; ls /sys/class/virtio-ports | grep . && exit 1
      echo ${this.#bdf} > ${driver}/bind`)
  }

  protected node(name: string): Promise<string> {
    return portNode(this.machine, name, 30_000)
  }
}

export class DriverGuest extends CharacterGuest {
  /** What our driver warned of. */
  readonly log: string[] = []
  readonly #words: string
  #job: Job | undefined

  constructor(machine: Machine, words: string) {
    super(machine)
    this.#words = words
  }

  async start(): Promise<void> {
    this.#job = this.machine.spawn(`exec ${GUEST_COMMAND} ${this.#words}`)
    await this.#job.waitForOutput(/ports at most/, 60_000)
  }

  async names(): Promise<string[]> {
    return (await this.machine.sh('ls /dev/virtio-ports 2>/dev/null || true')).split('\n').filter(Boolean).toSorted()
  }

  /** "port 5: /dev/vmch2 (NAME)". */
  async id(name: string): Promise<number> {
    const said = new RegExp(`port (\\d+): /dev/\\S+ \\(${name}\\)`)
    await until(() => said.test(this.#job!.output), `the driver says where ${name} is`)
    return Number(said.exec(this.#job!.output)![1])
  }

  async restartDriver(): Promise<void> {
    const job = this.#job!
    job.kill(15)
    const { status } = await job.wait()
    this.#keepLog()
    if (status !== 0) throw new Error(`our driver ended with ${status}: ${job.output.slice(-500)}`)
    const [name = ''] = this.#given
    // The kernel's driver has them in between.
    await portNode(this.machine, name, 30_000)
    await this.start()
  }

  override async resetMachine(): Promise<void> {
    this.#keepLog()
    await super.resetMachine()
    await this.start()
  }

  get output(): string {
    return this.#job?.output ?? ''
  }

  warnings(): string[] {
    this.#keepLog()
    return this.log
  }

  protected async node(name: string): Promise<string> {
    const path = `/dev/virtio-ports/${name}`
    await until(async () => (await this.machine.run(`[ -e ${path} ]`)).status === 0, `${path} appears`)
    return path
  }

  get #given(): string[] {
    return [...(this.#job?.output ?? '').matchAll(/\(([^()\s]+)\)$/gm)].map(([, name]) => name!)
  }

  #keepLog(): void {
    const lines = (this.#job?.output ?? '').split('\n')
    this.log.push(...lines.filter((line) => /: (error|warning): /.test(line)))
  }
}
