/** One cell, in a machine of its own: set up, checked, taken down. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BareMachine } from '../lab/bare-machine.ts'
import { ConsoleHost } from '../lab/console-host.ts'
import { ensureKernel } from '../lab/fetch/kernel.ts'
import { ensureOldQemu } from '../lab/fetch/old-qemu.ts'
import { ovmfArgs } from '../lab/fetch/ovmf.ts'
import { ensureQemu } from '../lab/fetch/qemu.ts'
import { codeDisk, nodeGuest } from '../lab/guest-image.ts'
import { Machine } from '../lab/machine.ts'
import { Pattern, patternSha256 } from '../lab/pattern.ts'
import { describeError } from '../src/errors.ts'
import type { Cell, Shape } from './cells.ts'
import { CHECKS } from './checks.ts'
import { DriverGuest, LinuxGuest } from './guests.ts'
import { QtestGuest } from './qtest-guest.ts'
import { PORTS, type Sides } from './sides.ts'

/** A line of `npm run matrix -- --json`. */
export interface CellResult {
  device: Cell['device']
  driver: Cell['driver']
  /** Release of the guest's kernel; null where there is none. */
  kernel: string | null
  /** Version. */
  qemu: string
  status: 'pass' | 'fail' | 'n/a'
  why: string
  shape: Shape
  /** Behind a virtual IOMMU. */
  iommu: boolean
  /** Booted by OVMF. */
  ovmf: boolean
  /** Checks that passed. */
  checked: string[]
  seconds: number
  /** Where it failed: what device, driver and guest said last. */
  log?: string[]
}

const SLOT = 0x10
const BDF = '0000:00:10.0'
const LINUX_MEMORY = '256M'
const OVMF_MEMORY = '512M'
/** More than the firmware's own buffers take, less than a socket holds. */
const EARLY_LEN = 64 << 10
const NODE_MEMORY = '1G'

const QEMU_SHAPE: Readonly<Record<Shape, string>> = {
  modern: 'virtio-serial-pci,disable-legacy=on,disable-modern=off',
  transitional: 'virtio-serial-pci,disable-legacy=off,disable-modern=off',
}

export async function runCell(cell: Cell): Promise<CellResult> {
  const { device, driver, shape } = cell
  const result: CellResult = {
    ...{ device, driver, kernel: cell.kernel ?? null, qemu: cell.qemu, status: 'pass', why: '' },
    ...{ shape, iommu: cell.iommu, ovmf: cell.ovmf, checked: [], seconds: 0 },
  }
  if (cell.never !== undefined) return { ...result, status: 'n/a', why: cell.never }
  const begun = Date.now()
  const undo: (() => Promise<void> | void)[] = []
  let doing = 'set-up'
  let sides: Sides | undefined
  try {
    sides = await setUp(cell, undo, result)
    for (const [name, check] of Object.entries(CHECKS)) {
      doing = name
      await check(sides)
      result.checked.push(name)
    }
  } catch (error) {
    result.status = 'fail'
    result.why = `${doing}: ${describeError(error)}`
    result.log = sides?.lastWords() ?? []
  }
  for (const step of undo.toReversed()) await step()
  result.seconds = Math.round((Date.now() - begun) / 100) / 10
  return result
}

async function setUp(cell: Cell, undo: (() => Promise<void> | void)[], result: CellResult): Promise<Sides> {
  const behind = cell.iommu
  const host = await ConsoleHost.start({
    ...{ device: cell.device, slot: SLOT, ports: PORTS },
    qemuDevice: `${QEMU_SHAPE[cell.shape]}${behind ? ',iommu_platform=on' : ''}`,
    ...(behind ? { vm: { iommuPlatform: true } } : {}),
  })
  undo.push(() => host.close())

  if (cell.driver === 'qtest') {
    const bare = await BareMachine.start({ args: host.args })
    undo.push(() => bare.close())
    result.qemu = bare.qemuVersion
    host.attach((name, args) => bare.qmp(name, args))
    const guest = new QtestGuest(bare, SLOT)
    guest.start()
    return { host, guest, complaints: () => [...host.log, ...guest.log], lastWords: () => [...host.log, ...guest.log] }
  }

  const [qemu, kernel] = [
    await (cell.qemu === '7.2' ? ensureOldQemu() : ensureQemu()),
    await ensureKernel(cell.kernel!),
  ]
  result.qemu = qemu.version
  result.kernel = kernel.release
  const linux = cell.driver === 'linux'
  const disk = linux ? undefined : await codeDisk()
  if (disk) undo.push(() => disk.remove())
  const memory = !linux ? NODE_MEMORY : cell.ovmf ? OVMF_MEMORY : LINUX_MEMORY
  const firmware = cell.ovmf ? await firmwareFolder(undo) : []
  // The sockets of QEMU's own device are made by QEMU: nobody can write before its start.
  const early = cell.ovmf && cell.device === 'ours' ? await writeEarly(host) : undefined
  const machine = await Machine.boot({
    ...{ qemu: qemu.path, kernel, memory, cpus: linux ? 1 : 2, machineType: 'q35,memory-backend=mem0' },
    ...(linux ? {} : { guest: await nodeGuest() }),
    bootTimeout: 120_000,
    args: [
      ...['-object', `memory-backend-memfd,id=mem0,size=${memory},share=on`],
      // A device of another process hears of mappings only in caching mode.
      ...(behind ? ['-device', 'intel-iommu,intremap=on,caching-mode=on'] : []),
      ...(disk?.args ?? []),
      ...firmware,
      ...host.args,
    ],
  })
  undo.push(() => machine.close())
  host.attach((name, args) => machine.qmp(name, args))
  const lastWords = (): string[] => [...host.log, machine.stderr, machine.log.slice(-3000)]
  if (linux) return { host, guest: new LinuxGuest(machine, BDF), complaints: () => host.log, lastWords, ...early }
  const guest = new DriverGuest(machine, `--device ${BDF} --driver ${cell.driver}`)
  await guest.start()
  return {
    ...{ host, guest, complaints: () => [...host.log, ...guest.warnings()] },
    lastWords: () => [...lastWords(), guest.output],
  }
}

async function firmwareFolder(undo: (() => Promise<void> | void)[]): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), 'vmchannel-ovmf-'))
  undo.push(() => rm(folder, { recursive: true, force: true }))
  return ovmfArgs(folder)
}

async function writeEarly(host: ConsoleHost): Promise<{ early: NonNullable<Sides['early']> }> {
  const peer = await host.connect(PORTS[0]!)
  peer.write(new Pattern().take(EARLY_LEN))
  return { early: { peer, len: EARLY_LEN, sha256: patternSha256(EARLY_LEN) } }
}
