/** The procedures of libguestfs's daemon that inspection needs, typed. Numbers are fixed for ever by its protocol. */

import { DaemonError, type DaemonClient } from './daemon-client.ts'
import type { Application } from './report.ts'
import { XdrWriter, type XdrReader } from './xdr.ts'

/**
 * Disks, partitions, RAID, volumes of Windows: lists that the daemon has at once. Logical volumes it asks a program for,
 * and a program more for each to say what else the device mapper has; in a fresh appliance there is nothing else.
 */
const LISTS = [7, 8, 300, 380] as const
const LVS = 11
const MOUNT_RO = 73
const DOWNLOAD = 67
const UMOUNT_ALL = 47
const VFS_TYPE = 198
const VFS_LABEL = 253
const VFS_UUID = 254
const LVM_CANONICAL_LV_NAME = 277
const BLKID = 303
const LS0 = 347
const LIST_FILESYSTEMS = 476
const INSPECT_OS = 480
const INSPECT_GET_MOUNTPOINTS = 500
const INSPECT_GET_FILESYSTEMS = 501
const INSPECT_GET_DRIVE_MAPPINGS = 502
const LIST_RPM_APPLICATIONS = 510

/** What is known of a root file system as a text. */
const TEXTS = {
  type: 483,
  distro: 484,
  packageFormat: 485,
  packageManagement: 486,
  productName: 487,
  productVariant: 488,
  arch: 491,
  hostname: 492,
} as const
/** The same of Windows only; the daemon refuses it elsewhere. */
const WINDOWS_TEXTS = { systemroot: 493, currentControlSet: 496 } as const
const NUMBERS = { majorVersion: 489, minorVersion: 490 } as const

export type SystemText = keyof typeof TEXTS
export type WindowsText = keyof typeof WINDOWS_TEXTS
export type SystemNumber = keyof typeof NUMBERS

const APPLICATION_STRINGS = 16
/** 16 strings and a number. */
const APPLICATION_MIN: number = (APPLICATION_STRINGS + 1) * 4

export class Procedures {
  readonly #client: DaemonClient

  constructor(client: DaemonClient) {
    this.#client = client
  }

  /** Every file system with its type: also "swap", "unknown", "crypto_LUKS". */
  listFilesystems(): Promise<[device: string, type: string][]> {
    return this.#client.call(LIST_FILESYSTEMS, undefined, (result) => result.table())
  }

  /** Every block device that there is but logical volumes, also such that only hold others. */
  async blockDevices(): Promise<string[]> {
    const found: string[] = []
    for (const proc of LISTS) {
      found.push(
        ...(await orElse(
          this.#client.call(proc, undefined, (result) => result.strings()),
          [],
        )),
      )
    }
    return found
  }

  volumes(): Promise<string[]> {
    return this.#client.call(LVS, undefined, (result) => result.strings())
  }

  /** TYPE, LABEL, UUID and more of a device; refused where there is nothing to say. */
  async blkid(device: string): Promise<Map<string, string>> {
    return new Map(await this.#table(BLKID, device))
  }

  /** Looks for operating systems; gives their root file systems. What follows is about what it found. */
  inspectOs(): Promise<string[]> {
    return this.#client.call(INSPECT_OS, undefined, (result) => result.strings())
  }

  systemText(root: string, what: SystemText): Promise<string> {
    return this.#text(TEXTS[what], root)
  }

  windowsText(root: string, what: WindowsText): Promise<string> {
    return this.#text(WINDOWS_TEXTS[what], root)
  }

  systemNumber(root: string, what: SystemNumber): Promise<number> {
    return this.#client.call(NUMBERS[what], new XdrWriter().string(root), (result) => result.int32())
  }

  mountpoints(root: string): Promise<[path: string, device: string][]> {
    return this.#table(INSPECT_GET_MOUNTPOINTS, root)
  }

  driveMappings(root: string): Promise<[drive: string, device: string][]> {
    return this.#table(INSPECT_GET_DRIVE_MAPPINGS, root)
  }

  systemFilesystems(root: string): Promise<string[]> {
    return this.#client.call(INSPECT_GET_FILESYSTEMS, new XdrWriter().string(root), (result) => result.strings())
  }

  filesystemType(device: string): Promise<string> {
    return this.#text(VFS_TYPE, device)
  }

  label(device: string): Promise<string> {
    return this.#text(VFS_LABEL, device)
  }

  uuid(device: string): Promise<string> {
    return this.#text(VFS_UUID, device)
  }

  /** /dev/VG/LV for any name of a logical volume. */
  canonicalVolume(device: string): Promise<string> {
    return this.#text(LVM_CANONICAL_LV_NAME, device)
  }

  mountReadOnly(device: string, path: string): Promise<void> {
    return this.#client.call(MOUNT_RO, new XdrWriter().string(device).string(path), () => undefined)
  }

  unmountAll(): Promise<void> {
    return this.#client.call(UMOUNT_ALL, undefined, () => undefined)
  }

  download(path: string, max: number): Promise<Buffer> {
    return this.#client.download(DOWNLOAD, new XdrWriter().string(path), max)
  }

  /** Names in a folder. */
  async list(path: string, max: number): Promise<string[]> {
    const bytes = await this.#client.download(LS0, new XdrWriter().string(path), max)
    return bytes
      .toString()
      .split('\0')
      .filter((name) => name !== '')
  }

  /** From the database of the system that is mounted. */
  rpmApplications(): Promise<Application[]> {
    const read = (result: XdrReader): Application[] => result.list(APPLICATION_MIN, () => rpmApplication(result))
    return this.#client.call(LIST_RPM_APPLICATIONS, undefined, read)
  }

  #text(proc: number, argument: string): Promise<string> {
    return this.#client.call(proc, new XdrWriter().string(argument), (result) => result.string())
  }

  #table(proc: number, argument: string): Promise<[string, string][]> {
    return this.#client.call(proc, new XdrWriter().string(argument), (result) => result.table())
  }
}

function rpmApplication(result: XdrReader): Application {
  const string = (): string => result.string()
  // Evaluated in this order, which is that of the message.
  const head = { name: string(), displayName: string(), epoch: result.int32(), version: string() }
  const more = { release: string(), arch: string(), installPath: string() }
  string() // a translated path, never filled in
  const rest = { publisher: string(), url: string(), sourcePackage: string(), summary: string(), description: string() }
  for (let spare = 0; spare < 4; spare++) string()
  return { ...head, ...more, ...rest }
}

/** What the daemon refused becomes `otherwise`; that it said nonsense, or went, stays an error. */
export async function orElse<T, E>(answer: Promise<T>, otherwise: E): Promise<T | E> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof DaemonError) return otherwise
    throw error
  }
}
