/** The descriptors of a process by what they lead to, to see whether any are left open. Used by tests and scenarios. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** What each leads to, of this process or another: "socket:[1234]", "pipe:[1234]", a path. */
export function links(pid: number | 'self' = 'self'): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((name) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${name}`)
    } catch {
      return [] // the one that read the directory
    }
  })
}

/** Kind or path → how many, of this process or another. */
export function descriptors(pid: number | 'self' = 'self'): Map<string, number> {
  const found = new Map<string, number>()
  for (const link of links(pid)) {
    // "socket:[1234]" and "pipe:[1234]" are told apart by number only.
    const kind = link.replace(/:\[\d+\]$/, '')
    found.set(kind, (found.get(kind) ?? 0) + 1)
  }
  return found
}

/** What is there more of than before: "socket: 3 instead of 1". */
export function grown(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): string[] {
  const more = [...after].filter(([kind, count]) => count > (before.get(kind) ?? 0))
  return more.map(([kind, count]) => `${kind}: ${count} instead of ${before.get(kind) ?? 0}`)
}

/** A line for each link: a Unix socket's type, state and path, and its peer where `ss` (iproute2) is installed. */
export function explain(these: readonly string[]): string[] {
  const sockets = readFileSync('/proc/net/unix', 'utf8').split('\n')
  const peers = (spawnSync('ss', ['-xaepH'], { encoding: 'utf8' }).stdout ?? '').split('\n')
  return these.map((link) => {
    const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1]
    if (inode === undefined) return link
    const socket = sockets.map((line) => line.trim().split(/\s+/)).find((words) => words[6] === inode)
    if (!socket) return `${link}: no Unix socket`
    const [, , , flags, type, state, , path = 'no path'] = socket
    const seen = peers.filter((line) => line.split(/\s+/).includes(inode)).map((line) => line.replaceAll(/\s+/g, ' '))
    return [`${link}: ${path}, type ${type}, state ${state}, flags ${flags}`, ...seen].join('\n    ')
  })
}
