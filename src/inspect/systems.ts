/**
 * The inspection itself, through the daemon: file systems, operating systems, and what is installed on each. Every
 * mount is read-only and in the appliance. Called by inspect-disk.ts.
 */

import { known, PARTS_MAX, type BlockDevices } from './block-devices.ts'
import { DaemonError } from './daemon-client.ts'
import { osinfoName } from './osinfo.ts'
import { apkApplications, dpkgApplications, pacmanApplications, sorted } from './packages.ts'
import { orElse, type Procedures } from './procedures.ts'
import type { Application, FileSystem, OperatingSystem } from './report.ts'
import { foldSnapshots } from './snapshots.ts'

/** As large as virt-inspector takes them. */
const DPKG_STATUS_MAX = 50_000_000
const APK_INSTALLED_MAX = 50_000_000
const PACMAN_DESC_MAX = 8192
const NAMES_MAX = 8_000_000

export interface SystemsOptions {
  /** Whether to list what is installed. */
  applications: boolean
  /** What cannot be looked at is said here. */
  warn: (text: string) => void
  /** What is being looked at. */
  step: (text: string) => void
}

export async function listSystems(
  daemon: Procedures,
  devices: BlockDevices,
  options: SystemsOptions,
): Promise<OperatingSystem[]> {
  const systems: OperatingSystem[] = []
  const { kept, snapshots } = foldSnapshots((await daemon.inspectOs()).slice(0, PARTS_MAX))
  for (const [device, count] of snapshots) options.warn(`${count} snapshots of the system on ${device} are not listed`)
  for (const root of kept) {
    systems.push(await readSystem(daemon, devices, root, options))
  }
  return systems
}

/**
 * Everything on the disk that could hold a file system. What the systems use has been looked at already; asking the
 * daemon for all of it again takes seconds, so that only the rest is looked at. Where there is no system the daemon's
 * own list says more: parts of volumes.
 */
export async function listFileSystems(
  daemon: Procedures,
  devices: BlockDevices,
  systems: readonly OperatingSystem[],
): Promise<FileSystem[]> {
  const found = new Map(systems.flatMap(({ filesystems }) => filesystems.map((one) => [one.device, one] as const)))
  if (systems.length === 0) {
    for (const [device, type] of (await daemon.listFilesystems()).slice(0, PARTS_MAX)) {
      const filesystem = await devices.describe(device, type)
      found.set(filesystem.device, filesystem)
    }
  }
  // The daemon's list leaves out what is encrypted.
  const others = await devices.others(new Set(found.keys()))
  // A device that only a system's own table names is not on the disk.
  for (const [device, { type }] of found) if (type === null && !others.names.has(device)) found.delete(device)
  return [...found.values(), ...others.found.values()].toSorted((a, b) => (a.device < b.device ? -1 : 1))
}

async function readSystem(
  daemon: Procedures,
  devices: BlockDevices,
  root: string,
  options: SystemsOptions,
): Promise<OperatingSystem> {
  const text = async (what: Parameters<Procedures['systemText']>[1]): Promise<string | null> =>
    known(await orElse(daemon.systemText(root, what), ''))
  const windows = async (what: Parameters<Procedures['windowsText']>[1]): Promise<string | null> =>
    known(await orElse(daemon.windowsText(root, what), ''))
  const type = await text('type')
  const mountpoints = await daemon.mountpoints(root)
  // Only Windows gives its disks letters.
  const drives = type === 'linux' ? [] : await daemon.driveMappings(root)
  const names = (await daemon.systemFilesystems(root)).slice(0, PARTS_MAX)
  const system: OperatingSystem = {
    root: await devices.canonical(root),
    type,
    arch: await text('arch'),
    distro: await text('distro'),
    productName: await text('productName'),
    productVariant: await text('productVariant'),
    majorVersion: await daemon.systemNumber(root, 'majorVersion'),
    minorVersion: await daemon.systemNumber(root, 'minorVersion'),
    packageFormat: await text('packageFormat'),
    packageManagement: await text('packageManagement'),
    hostname: await text('hostname'),
    osinfo: null,
    windowsSystemroot: type === 'windows' ? await windows('systemroot') : null,
    windowsCurrentControlSet: type === 'windows' ? await windows('currentControlSet') : null,
    mountpoints: [],
    filesystems: [],
    driveMappings: [],
    applications: null,
  }
  system.osinfo = osinfoName(system)
  for (const [path, device] of mountpoints) system.mountpoints.push({ path, device: await devices.canonical(device) })
  system.mountpoints.sort((a, b) => a.path.length - b.path.length || (a.path < b.path ? -1 : 1))
  for (const device of names) {
    system.filesystems.push(await devices.describe(device))
  }
  system.filesystems.sort((a, b) => (a.device < b.device ? -1 : 1))
  for (const [drive, device] of drives) {
    system.driveMappings.push({ drive, device: await devices.canonical(device) })
  }
  if (options.applications) {
    options.step(`reading what is installed on ${system.productName ?? system.root}`)
    system.applications = await mounted(daemon, mountpoints, options, () => listApplications(daemon, system, options))
  }
  return system
}

/** With the file systems of a system where they belong. Only its root must be there. */
async function mounted<T>(
  daemon: Procedures,
  mountpoints: readonly (readonly [string, string])[],
  { warn }: SystemsOptions,
  work: () => Promise<T>,
): Promise<T | null> {
  const byLength = mountpoints.toSorted(([a], [b]) => a.length - b.length)
  try {
    for (const [path, device] of byLength) {
      const wrong = await tryMount(daemon, device, path)
      if (wrong === undefined) continue
      warn(`${device} cannot be mounted on ${path}: ${wrong}`)
      if (path === '/') return null
    }
    return await work()
  } finally {
    await orElse(daemon.unmountAll(), undefined)
  }
}

/** Why it does not work; undefined where it did. */
export async function tryMount(daemon: Procedures, device: string, path: string): Promise<string | undefined> {
  try {
    await daemon.mountReadOnly(device, path)
    return undefined
  } catch (error) {
    if (error instanceof DaemonError) return error.message
    throw error
  }
}

async function listApplications(
  daemon: Procedures,
  { type, packageFormat, root }: OperatingSystem,
  { warn }: SystemsOptions,
): Promise<Application[] | null> {
  const text = async (path: string, max: number): Promise<string> => (await daemon.download(path, max)).toString()
  if (type !== 'linux' && type !== 'hurd') return null
  try {
    switch (packageFormat) {
      case 'deb':
        return dpkgApplications(await text('/var/lib/dpkg/status', DPKG_STATUS_MAX))
      case 'rpm':
        return sorted(await daemon.rpmApplications())
      case 'apk':
        return apkApplications(await text('/lib/apk/db/installed', APK_INSTALLED_MAX))
      case 'pacman':
        return await listPacman(daemon)
      default:
        return null
    }
  } catch (error) {
    if (!(error instanceof DaemonError)) throw error
    warn(`the package database on ${root} cannot be read: ${error.message}`)
    return null
  }
}

async function listPacman(daemon: Procedures): Promise<Application[]> {
  const folder = '/var/lib/pacman/local'
  const files: string[] = []
  for (const name of await daemon.list(folder, NAMES_MAX)) {
    const file = await orElse(daemon.download(`${folder}/${name}/desc`, PACMAN_DESC_MAX), undefined)
    if (file) files.push(file.toString())
  }
  return pacmanApplications(files)
}
