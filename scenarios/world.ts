/** One stock guest with the devices asked for plugged in, ours and QEMU's own: what is done to one is done to the other. */
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ConsoleHost } from '../lab/console-host.ts'
import { ensureKernel, VIRTIO_MODULES, type KernelSeries } from '../lab/fetch/kernel.ts'
import { ensureQemu } from '../lab/fetch/qemu.ts'
import { Machine } from '../lab/machine.ts'
import type { DeviceName } from './scenario.ts'
import { Side } from './side.ts'

const MEMORY = '512M'
const SLOT = 0x10
/** As many ports as both devices have by default. */
export const MAX_PORTS = 31

/** To hibernate to: as large as the memory, and empty. */
const DISK_BYTES = 512 << 20
/** A machine that has hibernated goes on here; for any other one this does nothing. */
const RESUME = '[ -e /sys/block/vda/dev ] && cat /sys/block/vda/dev > /sys/power/resume\n'

export class World {
  readonly banner: string
  readonly machine: Machine
  readonly sides: readonly Side[]
  readonly #hosts: readonly ConsoleHost[]

  static async start(devices: readonly DeviceName[], series: KernelSeries): Promise<World> {
    const [qemu, kernel] = [await ensureQemu(), await ensureKernel(series)]
    const hosts: ConsoleHost[] = []
    let machine: Machine | undefined
    try {
      for (const [i, device] of devices.entries())
        hosts.push(await ConsoleHost.start({ device, slot: SLOT + i, maxPorts: MAX_PORTS }))
      machine = await Machine.boot({
        ...{ qemu: qemu.path, kernel, memory: MEMORY, machineType: 'q35,memory-backend=mem0', bootTimeout: 120_000 },
        guest: { modules: [...VIRTIO_MODULES, 'virtio_blk'], init: RESUME },
        args: (folder) => [
          ...diskArgs(folder),
          ...['-object', `memory-backend-memfd,id=mem0,size=${MEMORY},share=on`],
          // Places for a whole device to be plugged into, one for each.
          ...devices.flatMap((name, i) => ['-device', `pcie-root-port,id=plug-${name},chassis=${i + 1},slot=${i + 1}`]),
          ...hosts.flatMap(({ args }) => args),
        ],
      })
      const running = machine
      for (const host of hosts) host.attach((name, args) => running.qmp(name, args))
      const bdf = (i: number): string => `0000:00:${(SLOT + i).toString(16)}.0`
      const sides = devices.map((device, i) => new Side(device, running, hosts[i]!, bdf(i)))
      return new World(`QEMU ${qemu.version}, guest Linux ${kernel.release}, TCG`, machine, sides, hosts)
    } catch (error) {
      await machine?.close()
      for (const host of hosts) await host.close()
      throw error
    }
  }

  private constructor(banner: string, machine: Machine, sides: readonly Side[], hosts: readonly ConsoleHost[]) {
    this.banner = banner
    this.machine = machine
    this.sides = sides
    this.#hosts = hosts
  }

  /** What device and guest said last. */
  lastWords(): string[] {
    return [...this.#hosts.flatMap(({ log }) => log), this.machine.stderr, this.machine.log.slice(-3000)].filter(
      Boolean,
    )
  }

  async close(): Promise<void> {
    await this.machine.close()
    for (const host of this.#hosts) await host.close()
  }
}

function diskArgs(folder: string): string[] {
  const file = join(folder, 'swap.img')
  writeFileSync(file, '')
  truncateSync(file, DISK_BYTES)
  return ['-drive', `if=none,id=swap,format=raw,file=${file}`, '-device', 'virtio-blk-pci,drive=swap']
}
