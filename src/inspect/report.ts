/**
 * What inspection finds, as programs get it. Names and values are those of virt-inspector; what is not known is null.
 */

export interface DiskReport {
  /** The file, as it was named. */
  disk: string
  /** raw, qcow2, vmdk … */
  format: string
  /** All of them, where several were named: /dev/sda, /dev/sdb … in this order. */
  disks: { disk: string; format: string }[]
  /** Everything on the disk that could hold a file system, also swap and encrypted parts. */
  filesystems: FileSystem[]
  /** Operating systems; usually one. */
  systems: OperatingSystem[]
  /** What could not be looked at, for a person. */
  warnings: string[]
}

export interface FileSystem {
  /** As a Linux guest would call it: /dev/sda1, /dev/vg/root, btrfsvol:/dev/sda2/home. */
  device: string
  /** ext4, xfs, ntfs, swap, crypto_LUKS; null where nothing is known. */
  type: string | null
  label: string | null
  uuid: string | null
}

export interface OperatingSystem {
  /** Device of the root file system. */
  root: string
  /** linux, windows, freebsd … */
  type: string | null
  arch: string | null
  /** debian, fedora, ubuntu … */
  distro: string | null
  productName: string | null
  productVariant: string | null
  majorVersion: number
  minorVersion: number
  packageFormat: string | null
  packageManagement: string | null
  hostname: string | null
  /** The short name that libosinfo has for it. */
  osinfo: string | null
  windowsSystemroot: string | null
  windowsCurrentControlSet: string | null
  mountpoints: { path: string; device: string }[]
  filesystems: FileSystem[]
  /** Drive letters of Windows. */
  driveMappings: { drive: string; device: string }[]
  /** Null where applications of such a system cannot be listed. */
  applications: Application[] | null
}

/** An installed package; what is not known is "". */
export interface Application {
  name: string
  displayName: string
  epoch: number
  version: string
  release: string
  arch: string
  installPath: string
  publisher: string
  url: string
  sourcePackage: string
  summary: string
  description: string
}
