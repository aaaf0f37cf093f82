/**
 * `inspectDisk`: what is on a disk image, without mounting it here and without root. Boots libguestfs's appliance with
 * our device and asks the daemon in it. Part of the library; `vmchannel inspect` prints what it gives.
 */

import { closeSync } from 'node:fs'
import { aborted, type WaitOptions } from '../client/abort.ts'
import { PeerFault, VmchannelError } from '../errors.ts'
import { findQemu } from '../qemu/find.ts'
import { probeCacheFile, probeQemu } from '../qemu/probe.ts'
import { findAppliance } from './appliance.ts'
import { ApplianceMachine } from './appliance-machine.ts'
import { BlockDevices } from './block-devices.ts'
import { DaemonClient, DaemonError } from './daemon-client.ts'
import { damaged, encrypted } from './disk-errors.ts'
import { findConfinement } from './confinement.ts'
import { lookAtDisk, type DiskFile } from './disk-file.ts'
import type { DiskFormat } from './disk-formats.ts'
import { Procedures } from './procedures.ts'
import type { DiskReport, FileSystem } from './report.ts'
import { listFileSystems, listSystems, tryMount } from './systems.ts'

/** The appliance is on one more; the daemon's names end at /dev/sdz where one letter is enough. */
const DISKS_MAX = 25

export interface InspectOptions extends WaitOptions {
  /** Format of the image; looked for in it where left out. It may name no other file, said or not. */
  format?: DiskFormat
  /** Whether to list what is installed; default true. */
  applications?: boolean
  /** The QEMU to run; default VMCHANNEL_QEMU, else the first on PATH. */
  qemu?: string
  /** What is going on now, for a person: booting takes some seconds. */
  onStep?: (text: string) => void
}

/**
 * Says what is on the disk of a guest, or on its disks, where it has several. Rejects where there is nothing to find: a
 * disk is missing, empty, damaged, encrypted, or no disk.
 */
export async function inspectDisk(disk: string | readonly string[], options: InspectOptions = {}): Promise<DiskReport> {
  const paths = typeof disk === 'string' ? [disk] : disk
  const name = paths.join(', ')
  const { signal } = options
  if (signal?.aborted) throw aborted(`inspecting ${name}`, signal)
  if (paths.length === 0 || paths.length > DISKS_MAX)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${paths.length} disks to inspect`, {
      hint: `name one disk to ${DISKS_MAX} disks of one guest`,
    })
  const disks: DiskFile[] = []
  try {
    for (const path of paths) disks.push(lookAtDisk(path, options.format))
    return await boot(name, disks, options)
  } catch (error) {
    throw explain(name, error)
  } finally {
    for (const { fd } of disks) closeSync(fd)
  }
}

async function boot(name: string, disks: readonly DiskFile[], options: InspectOptions): Promise<DiskReport> {
  const { signal, onStep: step = () => {} } = options
  const qemu = findQemu(process.env, options.qemu)
  probeQemu(qemu, probeCacheFile(process.env))
  const confined = findConfinement(qemu)
  const appliance = await findAppliance(process.env, step, signal)
  const confinement = await confined
  for (const what of confinement.missing) step(`the appliance's QEMU runs without ${what}`)
  let fail: (error: Error) => void = () => {}
  const failed = new Promise<never>((_, reject) => (fail = reject))
  failed.catch(() => {}) // it may fail before anybody looks
  const stop = watch(name, options, fail)
  step('booting the appliance')
  try {
    const machine = await ApplianceMachine.start({ qemu, appliance, disks, confinement, signal, onExit: fail })
    try {
      const client = new DaemonClient(machine.port)
      failed.catch((error: Error) => client.fail(error))
      return await Promise.race([failed, look(name, disks, client, options)])
    } finally {
      await machine.close()
    }
  } finally {
    stop()
  }
}

async function look(
  disk: string,
  disks: readonly DiskFile[],
  client: DaemonClient,
  options: InspectOptions,
): Promise<DiskReport> {
  const { onStep: step = () => {}, applications = true } = options
  await client.launched()
  const daemon = new Procedures(client)
  const warnings: string[] = []
  step('looking for operating systems')
  const warn = (text: string): void => void warnings.push(text)
  const devices = new BlockDevices(daemon)
  const systems = await listSystems(daemon, devices, { applications, warn, step })
  step('looking at the other file systems')
  const filesystems = await listFileSystems(daemon, devices, systems)
  if (systems.length === 0) await explainNothing(disk, filesystems, devices.members, daemon)
  for (const { device, type } of filesystems) {
    if (isEncrypted(type)) warnings.push(`${device} is encrypted: what is on it cannot be seen`)
  }
  const named = disks.map(({ path, format }) => ({ disk: path, format }))
  return { ...named[0]!, disks: named, filesystems, systems, warnings }
}

/** Rejects where no system was found because nothing can be read. A disk with data alone is fine. */
async function explainNothing(
  disk: string,
  filesystems: readonly FileSystem[],
  members: readonly string[],
  daemon: Procedures,
): Promise<void> {
  const secret = filesystems.find(({ type }) => isEncrypted(type))
  if (secret) throw encrypted(disk, secret.device)
  const readable = filesystems.filter(({ type }) => type !== null && type !== 'swap')
  if (readable.length === 0 && members.length > 0) {
    const what = `${members.join(', ')} is a part of a volume group or RAID, and nothing in it can be read`
    throw new VmchannelError('ERR_VMCHANNEL_DISK', `${disk}: ${what}`, {
      hint: 'is it whole? Name all disks of the guest, in its order: vmchannel inspect DISK1 DISK2',
    })
  }
  if (readable.length === 0) {
    const what = filesystems.map(({ device }) => device).join(', ')
    const found = what === '' ? 'neither partitions nor a file system' : `no file system that is known on ${what}`
    throw new VmchannelError('ERR_VMCHANNEL_DISK', `${disk}: ${found}`, {
      hint:
        'is it a disk image, and whole? An image in a wrong format (--format) looks like this as well, and one for ' +
        'sectors of 4096 bytes that is not raw: qemu-img convert -O raw',
    })
  }
  for (const { device, type } of readable) {
    const wrong = await tryMount(daemon, device, '/')
    if (wrong !== undefined) throw damaged(disk, `${type} on ${device} cannot be read: ${wrong.split('\n')[0]}`)
    await daemon.unmountAll()
  }
}

function isEncrypted(type: string | null): boolean {
  return type === 'crypto_LUKS' || type === 'BitLocker'
}

/** Calls back when the caller's patience is over; returns the way to stop that. */
function watch(disk: string, { signal, timeout }: WaitOptions, fail: (error: Error) => void): () => void {
  const abort = (): void => fail(aborted(`inspecting ${disk}`, signal))
  signal?.addEventListener('abort', abort, { once: true })
  const late = (): void =>
    fail(new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `inspecting ${disk}: not within ${timeout} ms`))
  const timer = timeout === undefined ? undefined : setTimeout(late, timeout)
  return () => {
    signal?.removeEventListener('abort', abort)
    clearTimeout(timer)
  }
}

/** What the daemon said that it should not have becomes an error for people. */
function explain(disk: string, error: unknown): unknown {
  if (error instanceof PeerFault) {
    return new VmchannelError(
      'ERR_VMCHANNEL_DISK',
      `inspecting ${disk}: the appliance talks nonsense: ${error.message}`,
      {
        hint: 'is LIBGUESTFS_PATH an appliance of libguestfs 1.40 or newer? Else the disk may have broken it',
        cause: error,
      },
    )
  }
  if (error instanceof DaemonError) {
    return new VmchannelError('ERR_VMCHANNEL_DISK', `inspecting ${disk}: ${error.message}`, { cause: error })
  }
  return error
}
