/**
 * Block devices of the disk, and what is on each, asked with as few programs in the appliance as can be: each one that
 * the daemon starts takes a good part of a second where there is no KVM. Called by systems.ts.
 */

import { orElse, type Procedures } from './procedures.ts'
import type { FileSystem } from './report.ts'

/** A disk of a stranger may have any number of anything. */
export const PARTS_MAX = 1000

/** Parts of something else, which is in the list itself. */
const MEMBERS: ReadonlySet<string> = new Set(['LVM2_member', 'linux_raid_member', 'mpath_member'])
/** The daemon has other ways to their labels and numbers than blkid. */
const OWN_WAYS: ReadonlySet<string> = new Set(['btrfs', 'ntfs'])

export class BlockDevices {
  /** Parts of volume groups and RAIDs that others() has met. */
  readonly members: string[] = []
  readonly #daemon: Procedures
  readonly #names = new Map<string, string>()

  constructor(daemon: Procedures) {
    this.#daemon = daemon
  }

  /** Logical volumes have several names; people know them as /dev/VG/LV. */
  async canonical(device: string): Promise<string> {
    if (!/^\/dev\/(mapper\/|dm-)/.test(device)) return device
    const name = this.#names.get(device) ?? (await orElse(this.#daemon.canonicalVolume(device), device))
    this.#names.set(device, name)
    return name
  }

  async describe(device: string, given?: string): Promise<FileSystem> {
    const daemon = this.#daemon
    const text = async (answer: Promise<string>): Promise<string | null> => (await orElse(answer, '')) || null
    const name = await this.canonical(device)
    // One look that tells all. Not for parts of a file system, and it may refuse what it is not sure of.
    const tags = device.startsWith('/dev/') ? await orElse(daemon.blkid(device), undefined) : undefined
    const type = known(given ?? tags?.get('TYPE') ?? (await orElse(daemon.filesystemType(device), '')))
    const found = { device: name, type, label: tags?.get('LABEL') || null, uuid: tags?.get('UUID') || null }
    // Odd characters are escaped there.
    const whole = tags?.has('TYPE') === true && !`${found.label}${found.uuid}`.includes('\\')
    if (whole && !OWN_WAYS.has(type ?? '')) return found
    return { ...found, label: await text(daemon.label(device)), uuid: await text(daemon.uuid(device)) }
  }

  /** Names of all that there are on the disk, and file systems of those that are not in `known`, by name. */
  async others(known: ReadonlySet<string>): Promise<{ names: Set<string>; found: Map<string, FileSystem> }> {
    const names = new Set((await this.#daemon.blockDevices()).slice(0, PARTS_MAX))
    const found = new Map<string, FileSystem>()
    // Volumes are only looked for where there is one of their parts: that takes the longest.
    if (await this.#look([...names], names, known, found)) {
      const volumes = (await orElse(this.#daemon.volumes(), [])).slice(0, PARTS_MAX)
      for (const volume of volumes) names.add(volume)
      await this.#look(volumes, names, known, found)
    }
    return { names, found }
  }

  /** Whether one of them is a part of a volume group. */
  async #look(
    devices: readonly string[],
    all: ReadonlySet<string>,
    known: ReadonlySet<string>,
    found: Map<string, FileSystem>,
  ): Promise<boolean> {
    let volumes = false
    for (const device of devices) {
      if (holdsOthers(device, all)) continue
      const name = await this.canonical(device)
      if (known.has(name) || found.has(name)) continue
      const filesystem = await this.describe(device)
      volumes ||= filesystem.type === 'LVM2_member'
      const extended = filesystem.type === null && /[a-z][1-4]$/.test(device) && all.has(`${device.slice(0, -1)}5`)
      if (MEMBERS.has(filesystem.type ?? '')) this.members.push(name)
      else if (!extended) found.set(name, filesystem)
    }
    return volumes
  }
}

/** A disk with partitions. */
function holdsOthers(device: string, all: ReadonlySet<string>): boolean {
  // /dev/sda1, but /dev/md0p1.
  const partition = /\d$/.test(device) ? /^p\d+$/ : /^\d+$/
  return [...all].some((other) => other.startsWith(device) && partition.test(other.slice(device.length)))
}

export function known(text: string): string | null {
  return text === '' || text === 'unknown' ? null : text
}
