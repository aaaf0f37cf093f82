/**
 * Snapshots of a btrfs root: each is a root file system by itself, and one system to whoever asks what is on the disk.
 * They are told by where snapper and Timeshift put them. Called by systems.ts.
 */

const SNAPSHOT = /\/(?:\.snapshots\/\d+\/snapshot|timeshift-btrfs\/snapshots\/[^/]+\/@)$/
/** A volume of btrfs is named by its device and its path within. */
const DEVICE = /^(?:btrfsvol:)?(\/dev\/(?:mapper\/[^/]+|[hsv]d[a-z]+\d*|md\d+(?:p\d+)?|[^/]+\/[^/]+))/

export interface Roots {
  kept: string[]
  /** How many of each device are not. */
  snapshots: Map<string, number>
}

/** One root for each system. Where a device has nothing but snapshots, the first of them stays. */
export function foldSnapshots(roots: readonly string[]): Roots {
  const isSnapshot = (root: string): boolean => root.startsWith('btrfsvol:') && SNAPSHOT.test(root)
  const seen = new Set(roots.filter((root) => !isSnapshot(root)).map(deviceOf))
  const snapshots = new Map<string, number>()
  const kept = roots.filter((root) => {
    const device = deviceOf(root)
    if (!isSnapshot(root)) return true
    if (!seen.has(device)) return Boolean(seen.add(device))
    snapshots.set(device, (snapshots.get(device) ?? 0) + 1)
    return false
  })
  return { kept, snapshots }
}

function deviceOf(root: string): string {
  return DEVICE.exec(root)?.[1] ?? root
}
