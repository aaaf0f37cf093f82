/** The descriptors of a process by what they lead to, to see whether any are left open. Used by tests and scenarios. */
import { readdirSync, readlinkSync } from 'node:fs'

/** Kind or path → how many, of this process or another. */
export function descriptors(pid: number | 'self' = 'self'): Map<string, number> {
  const found = new Map<string, number>()
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    let target: string
    try {
      target = readlinkSync(`/proc/${pid}/fd/${name}`)
    } catch {
      continue // the one that read the directory
    }
    // "socket:[1234]" and "pipe:[1234]" are told apart by number only.
    const kind = target.replace(/:\[\d+\]$/, '')
    found.set(kind, (found.get(kind) ?? 0) + 1)
  }
  return found
}

/** What is there more of than before: "socket: 3 instead of 1". */
export function grown(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): string[] {
  const more = [...after].filter(([kind, count]) => count > (before.get(kind) ?? 0))
  return more.map(([kind, count]) => `${kind}: ${count} instead of ${before.get(kind) ?? 0}`)
}
