/**
 * What outlives this process: descriptors and notes under a name, held by the keeper (src/keeper/) for a successor.
 * Whoever owns a descriptor keeps it here when it comes, and forgets it when it goes: a socket that is still kept is
 * not closed for its other end. The device side of it is daemon/keeper-link.ts; without a keeper there is no store.
 */

export interface Kept {
  fds: number[]
  note: string
}

export interface Store {
  /** What the process before this one has left under a name; once, and the descriptors are the caller's. */
  recall(name: string): Kept | undefined
  /** The names of what it has left and nobody has recalled. */
  left(): string[]
  /** Takes the place of what was there; the caller's descriptors stay its own. */
  keep(name: string, fds: readonly number[], note?: string): void
  forget(name: string): void
  /** Forgets all. */
  clear(): void
  /** A part of it, whose names begin with this one. */
  scope(name: string): Store
}

/** The one descriptor that was left under a name. */
export function recallFd(store: Store | undefined, name: string): number | undefined {
  return store?.recall(name)?.fds[0]
}
