/**
 * One guest with three virtio-serial devices of QEMU's own, one port each, and a driver for each: the kernel's, ours
 * behind a character device, ours inside a program. Only the driver differs.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { guestProgram } from '../lab/fetch/compiler.ts'
import { ensureKernel } from '../lab/fetch/kernel.ts'
import { ensureQemu } from '../lab/fetch/qemu.ts'
import { codeDisk, GUEST_COMMAND, GUEST_HOME, nodeGuest, type CodeDisk } from '../lab/guest-image.ts'
import { Machine } from '../lab/machine.ts'
import { portNode } from '../lab/ports.ts'
import { repoRoot } from '../lab/paths.ts'
import { vmtest, type VmtestName, type VmtestResults } from '../lab/vmtest.ts'
import type { BenchRig } from './case.ts'
import { peerProgram, startPeer, type PeerResult } from './peer.ts'

const ADDRESS = { kernel: '0x10', cuse: '0x11', inproc: '0x12' } as const
export type GuestDriver = keyof typeof ADDRESS
const ORDERS = '/tmp/orders'
const ANSWERS = '/tmp/answers'
const FLOOR = 'cuse-floor'
const WARM_UPS = 5
const WARM_UP_LEN = { inproc: 256 << 20, cuse: 128 << 20 } as const
const WARM_UP_TRIPS = 1000
/** Which character device: of a device of QEMU's, or of a program that answers at once. */
type Node = 'kernel' | 'cuse' | 'floor'
/** The driver and the program that it serves run side by side in a guest that has two. */
const CPUS = Number(process.env['VMCHANNEL_BENCH_GUEST_CPUS'] ?? 2)

export class GuestRig implements BenchRig {
  readonly machine: Machine
  readonly banner: string
  readonly #disk: CodeDisk
  readonly #program: string
  readonly #nodes: Record<Node, string>
  readonly #warm = new Set<string>()

  static async start(): Promise<GuestRig> {
    const [qemu, kernel, guest, program, floor] = await Promise.all([
      ...[ensureQemu(), ensureKernel('6.1'), nodeGuest(), peerProgram(), floorProgram()],
    ] as const)
    const files = { ...guest.files, [`/bin/${FLOOR}`]: floor }
    const disk = await codeDisk()
    try {
      const machine = await Machine.boot({
        ...{ qemu: qemu.path, kernel, guest: { ...guest, files }, memory: '1G', machineType: 'q35', cpus: CPUS },
        args: (folder) => [
          ...disk.args,
          ...Object.entries(ADDRESS).flatMap(([name, addr]) => [
            ...['-device', `virtio-serial-pci,id=${name},disable-legacy=on,addr=${addr}`],
            ...['-chardev', `socket,id=c-${name},path=${folder}/${name}.sock,server=on,wait=off`],
            ...['-device', `virtserialport,bus=${name}.0,chardev=c-${name},name=${name}`],
          ]),
        ],
      })
      try {
        const cuse = await startCuse(machine)
        await startProgram(machine)
        await machine.spawn(`exec ${FLOOR} floor`).waitForOutput(/^ready$/m)
        const nodes = { kernel: await portNode(machine, 'kernel'), cuse, floor: '/dev/floor' }
        const banner = `QEMU ${qemu.version}, guest Linux ${kernel.release} with ${CPUS} CPUs, TCG; ours: the driver half, qemu: the kernel's`
        return new GuestRig(machine, disk, program, nodes, banner)
      } catch (error) {
        await machine.close()
        throw error
      }
    } catch (error) {
      disk.remove()
      throw error
    }
  }

  private constructor(machine: Machine, disk: CodeDisk, program: string, nodes: Record<Node, string>, banner: string) {
    this.machine = machine
    this.#disk = disk
    this.#program = program
    this.#nodes = nodes
    this.banner = banner
  }

  /** The host's end of a port. */
  peer(driver: GuestDriver, mode: 'sink' | 'source' | 'echo', ...words: number[]): Promise<() => Promise<PeerResult>> {
    return startPeer(this.#program, join(this.machine.folder, `${driver}.sock`), mode, ...words)
  }

  /** The C program on a character device. */
  vmtest<Name extends VmtestName>(node: Node, name: Name, ...words: (string | number)[]): Promise<VmtestResults[Name]> {
    return vmtest(this.machine, name, [this.#nodes[node], ...words], 120_000)
  }

  /** The program that drives its device itself; nanoseconds from its first byte to its last. */
  async inProcess(order: 'source' | 'sink', bytes: number, size: number): Promise<{ ns: number }> {
    const text = await this.machine.sh(`echo ${order} ${bytes} ${size} >${ORDERS}; cat ${ANSWERS}`, {
      timeout: 120_000,
    })
    return JSON.parse(text) as { ns: number }
  }

  /**
   * Does it a few times first, until our side is compiled: V8 needs seconds for that in a guest under TCG. The kernel's
   * driver, which needs none, does the same.
   */
  async warmUp(driver: 'cuse' | 'inproc', order: 'source' | 'sink', size: number): Promise<void> {
    if (!this.#first(`${driver} ${order}`)) return
    for (let i = 0; i < WARM_UPS; i++)
      for (const side of driver === 'cuse' ? (['cuse', 'kernel'] as const) : (['inproc'] as const)) {
        const bytes = WARM_UP_LEN[driver]
        const finish = await this.peer(side, order === 'source' ? 'sink' : 'source', bytes, size)
        if (side === 'inproc') await this.inProcess(order, bytes, size)
        else if (order === 'source') await this.vmtest(side, 'source', bytes, size, 1, '--no-hash')
        else await this.vmtest(side, 'sink', bytes, size, '--no-hash')
        await finish()
      }
  }

  /** The same for round trips. */
  async warmUpTrips(size: number): Promise<void> {
    if (!this.#first('ping')) return
    for (let i = 0; i < WARM_UPS; i++)
      for (const side of ['cuse', 'kernel'] as const) {
        const finish = await this.peer(side, 'echo')
        await this.vmtest(side, 'ping', WARM_UP_TRIPS, size)
        await finish()
      }
  }

  #first(what: string): boolean {
    return this.#warm.size < this.#warm.add(what).size
  }

  async close(): Promise<void> {
    await this.machine.close()
    this.#disk.remove()
  }
}

async function floorProgram(): Promise<string> {
  return guestProgram(FLOOR, await readFile(join(repoRoot(), 'bench', `${FLOOR}.c`), 'utf8'))
}

/** The path of the character device. */
async function startCuse(machine: Machine): Promise<string> {
  const options = process.env['VMCHANNEL_BENCH_NODE_OPTIONS'] ?? ''
  const job = machine.spawn(`NODE_OPTIONS='${options}' exec ${GUEST_COMMAND} --device 00:11.0`)
  const [, node = ''] = await job.waitForOutput(/: (\/dev\/vmch\d+) \(cuse\)/)
  return node
}

async function startProgram(machine: Machine): Promise<void> {
  const text = await readFile(join(repoRoot(), 'dist', 'bench', 'guest-port.js'), 'utf8')
  const path = `${GUEST_HOME}/dist/bench/guest-port.js`
  await machine.sh(`mkdir -p ${GUEST_HOME}/dist/bench; mkfifo ${ORDERS} ${ANSWERS}
cat >${path} <<'END'\n${text.replace(/^\/\/# source.*$/m, '')}\nEND`)
  const job = machine.spawn(`exec node ${path} 0000:00:12.0 inproc ${ORDERS} ${ANSWERS}`)
  await job.waitForOutput(/^ready$/m)
}
