/**
 * The files behind guest memory: each is mapped once, however often the VMM sends its descriptor.
 *
 * Called by the DMA table. QEMU takes the biggest region away and brings it back several times while a guest boots, and
 * a new view of it would cost the garbage collector milliseconds each time: a file that nobody uses stays mapped a while.
 */

import { VmchannelError } from '../../../errors.ts'
import { SharedMapping, type FileFacts } from '../../../ffi/mmap.ts'
import type { Store } from '../../../store.ts'

/**
 * Files of one VMM at a time: each takes one of the mappings that the kernel allows this process. QEMU has one per memory
 * back end, and a handful of firmware files with aux-ram-share=on.
 */
const MAX_FILES = 512
/** How long a file may be unused before its memory goes back; long enough for a reboot of the guest's firmware. */
const IDLE_MS = 10_000

export class Backing {
  readonly mapping: SharedMapping
  users = 0
  timer: NodeJS.Timeout | undefined

  constructor(mapping: SharedMapping) {
    this.mapping = mapping
  }
}

export class Backings {
  readonly #files = new Map<string, Backing>()
  readonly #idleMs: number
  readonly #store: Store | undefined

  constructor(idleMs: number = IDLE_MS, store?: Store) {
    this.#idleMs = idleMs
    this.#store = store
  }

  get count(): number {
    return this.#files.size
  }

  /** The mapping of the file behind `fd`, which stays the caller's. Throws VmchannelError. Give it back by `release`. */
  acquire(fd: number, facts: FileFacts): Backing {
    const key = fileKey(facts)
    let backing = this.#files.get(key)
    if (!backing) {
      this.#makeRoom()
      backing = new Backing(new SharedMapping(fd, facts.size, facts.writable))
      this.#files.set(key, backing)
      this.#store?.keep(key, [fd])
    }
    clearTimeout(backing.timer)
    backing.users++
    backing.timer = undefined
    return backing
  }

  release(backing: Backing): void {
    if (--backing.users > 0) return
    backing.timer = setTimeout(() => this.#drop(backing), this.#idleMs)
    backing.timer.unref()
  }

  /** Whether a file was cut short under us. */
  get lost(): boolean {
    return [...this.#files.values()].some(({ mapping }) => mapping.lost)
  }

  /** Drops all memory at once. */
  close(): void {
    for (const backing of this.#files.values()) this.#drop(backing)
  }

  #makeRoom(): void {
    if (this.#files.size < MAX_FILES) return
    for (const backing of this.#files.values()) if (backing.users === 0) this.#drop(backing)
    if (this.#files.size < MAX_FILES) return
    throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `guest memory in more than ${MAX_FILES} files`)
  }

  #drop(backing: Backing): void {
    clearTimeout(backing.timer)
    backing.mapping.drop()
    for (const [key, value] of this.#files) if (value === backing) this.#forget(key)
  }

  #forget(key: string): void {
    this.#files.delete(key)
    this.#store?.forget(key)
  }
}

/** The name of a file; descriptors that are writable and not are two. */
export function fileKey({ identity, writable, size }: FileFacts): string {
  return `${identity}:${writable}:${size}`
}
