/**
 * 1, 8 and 32 VMs, no guests, each with one open port whose driver runs: what one more idle VM costs. `scale.vms.N` is
 * one device process that serves them all (`vmchannel serve`), `.apart` a process for each (what the wrapper starts).
 * There is nobody to compare with: in QEMU the device is a part of the VM.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BareMachine } from '../lab/bare-machine.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import { ConsoleDriver } from '../src/driver/console.ts'
import { makeSuite, type BenchRig, type Case, type Figures, type Suite } from './case.ts'
import { livingCpuSeconds, ownMemory } from './cpu.ts'
import { Tap } from './tap.ts'
import { stopDevice, until } from './wait.ts'

const SLOT = 4
const MIB = 1 << 20
/** Eight seconds after a process has last done something V8 tidies up, once: 16 ms of work that gives back 4 MiB. */
const SETTLE_MS = 12_000
const IDLE_MS = 4000

class Farm implements BenchRig {
  readonly banner = 'many VMs, no guests, our driver half'
  readonly #folders: string[] = []
  readonly #devices: StartedDevice[] = []
  readonly #machines: BareMachine[] = []

  async device(vms: number): Promise<StartedDevice> {
    const folder = await mkdtemp(join(tmpdir(), 'vmchannel-farm-'))
    const list = Array.from({ length: vms }, (_, i) => ({ ports: [`unix:${join(folder, `${i}.sock`)},name=port`] }))
    const device = await startDevice({
      ...{ stateDir: join(folder, 'state'), vms: list, exitWith: 'parent', logLevel: 'warn' },
    })
    this.#folders.push(folder)
    this.#devices.push(device)
    return device
  }

  /** Starts a VM on a device, with a driver and an open port. */
  async boot(qemuArgs: readonly string[]): Promise<void> {
    const [option, value] = qemuArgs as [string, string]
    const ours = JSON.stringify({ ...(JSON.parse(value) as object), addr: `0${SLOT}.0` })
    const machine = await BareMachine.start({ memory: 64 * MIB, args: [option, ours] })
    this.#machines.push(machine)
    const { transport, pool } = machine.qtest.attach({ slot: SLOT })
    const driver = new ConsoleDriver(transport, pool, { defer: setImmediate })
    driver.start()
    await until(() => driver.ports.some(({ name }) => name === 'port'))
    driver.ports.find(({ name }) => name === 'port')!.attach((end) => new Tap(end))
  }

  /** Megabytes of processes, and processor milliseconds a second, while nothing moves. */
  async idle(pids: readonly number[]): Promise<{ mib: number; cpu: number }> {
    await sleep(SETTLE_MS)
    const used = (): number => pids.reduce((sum, pid) => sum + livingCpuSeconds(pid), 0)
    const before = used()
    await sleep(IDLE_MS)
    const cpu = ((used() - before) * 1e3) / (IDLE_MS / 1e3)
    return { mib: pids.reduce((sum, pid) => sum + ownMemory(pid), 0) / MIB, cpu }
  }

  async clear(): Promise<void> {
    for (const machine of this.#machines.splice(0)) await machine.close()
    const folders = this.#folders.splice(0)
    for (const [i, device] of this.#devices.splice(0).entries()) await stopDevice(device, folders[i]!)
  }

  close(): Promise<void> {
    return this.clear()
  }
}

/** Each run is a new set of processes, from the first VM to the last. */
function vmsCase(count: number, apart: boolean): Case<Farm> {
  const id = `scale.vms.${count}${apart ? '.apart' : ''}`
  const cpu = `${id}.cpu`
  const where = apart ? 'a device process each' : 'in one device process'
  return {
    ids: [id, cpu],
    title: count === 1 ? `1 VM, ${where}: all of it` : `${count} VMs, ${where}: per VM beyond the first`,
    unit: 'MiB',
    units: { [cpu]: 'ms/s' },
    ...{ sides: ['ours'], pairsMax: 3, warmUp: false },
    async run(farm): Promise<Figures> {
      const devices = [await farm.device(apart ? 1 : count)]
      await farm.boot(devices[0]!.vms[0]!.qemuArgs)
      const first = await farm.idle(devices.map(({ pid }) => pid))
      if (count === 1) {
        await farm.clear()
        return { [id]: first.mib, [cpu]: first.cpu }
      }
      for (let i = 1; i < count; i++) {
        if (apart) devices.push(await farm.device(1))
        await farm.boot(apart ? devices[i]!.vms[0]!.qemuArgs : devices[0]!.vms[i]!.qemuArgs)
      }
      const all = await farm.idle(devices.map(({ pid }) => pid))
      await farm.clear()
      return { [id]: (all.mib - first.mib) / (count - 1), [cpu]: all.cpu / count }
    },
  }
}

export const SCALE_VMS: Suite = makeSuite(
  [vmsCase(1, false), vmsCase(8, false), vmsCase(32, false), vmsCase(32, true)],
  () => Promise.resolve(new Farm()),
)
