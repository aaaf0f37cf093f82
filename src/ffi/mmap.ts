/**
 * Shared files as memory: one mapping of a whole file, seen through windows, dropped without ever leaving a hole.
 *
 * Used for guest RAM by attachments. A view of an unmapped page kills the process, so the pages under a mapping that
 * is no longer wanted are replaced by zero pages at the same addresses (MAP_FIXED), and the addresses themselves are
 * given back only when the garbage collector has seen the last view die.
 */

import { fstatSync } from 'node:fs'
import { check, declare, systemError, viewNative } from './libc.ts'
import {
  MADV_DONTDUMP,
  MADV_DONTFORK,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_READ_WRITE,
  madviseFunction,
  mmapFunction,
} from './memory-calls.ts'
import { Guard } from './sigbus.ts'

const munmapFunction = declare('int munmap(int64_t address, size_t len)')
const fcntlFunction = declare('int fcntl(int fd, int command, int64_t argument)')
const memfdCreateFunction = declare('int memfd_create(const char *name, unsigned int flags)')

const F_GETFL = 3
const F_ADD_SEALS = 1033
const F_GET_SEALS = 1034
const O_ACCMODE = 3
const O_RDWR = 2
const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2

export const F_SEAL_SEAL = 1
export const F_SEAL_SHRINK = 2
export const F_SEAL_GROW = 4

/** Longest view: Node 20 aborts above 4 GiB, and each view is charged to the garbage collector in full. */
export const WINDOW_SIZE: number = 2 ** 30
/** How much of a window the next one repeats: no single structure (a ring, a queue's buffer) is longer. */
export const WINDOW_OVERLAP: number = 2 * 2 ** 20
const STRIDE = WINDOW_SIZE - WINDOW_OVERLAP

/** What a descriptor says about the file behind it. */
export interface FileFacts {
  regular: boolean
  size: number
  /** The same for every descriptor of the same file. */
  identity: string
  writable: boolean
  /** The file cannot get shorter: a mapping of it stays whole. */
  sealed: boolean
}

/** Looks at a descriptor; undefined where it is none. */
export function inspectFile(fd: number): FileFacts | undefined {
  const flags = fcntlFunction(fd, F_GETFL, 0)
  if (flags === -1) return undefined
  const stat = fstatSync(fd, { bigint: true })
  const seals = fcntlFunction(fd, F_GET_SEALS, 0)
  return {
    regular: stat.isFile(),
    size: Number(stat.size),
    identity: `${stat.dev}:${stat.ino}`,
    writable: (flags & O_ACCMODE) === O_RDWR,
    sealed: seals !== -1 && (seals & F_SEAL_SHRINK) !== 0,
  }
}

/** One piece of a mapping that lies in one window. */
export interface Piece {
  /** Offset in the file. */
  offset: number
  /** Bytes that this piece answers for. */
  size: number
  /**
   * Starts at `offset`; longer than `size` where the window overlaps the next piece. Made when it is first asked for: a
   * new view of a gigabyte costs the garbage collector 10 ms and more.
   */
  readonly bytes: Uint8Array
  /** Host virtual address of `bytes[0]`. */
  address: number
}

class LazyPiece implements Piece {
  readonly offset: number
  readonly size: number
  readonly address: number
  readonly #view: (offset: number) => Uint8Array
  #bytes: Uint8Array | undefined

  constructor(offset: number, size: number, address: number, view: (offset: number) => Uint8Array) {
    this.offset = offset
    this.size = size
    this.address = address
    this.#view = view
  }

  get bytes(): Uint8Array {
    return this.#bytes ?? (this.#bytes = this.#view(this.offset))
  }
}

interface Range {
  readonly address: number
  readonly size: number
  /** Windows whose views may still be alive. */
  views: number
  dropped: boolean
}

const registry = new FinalizationRegistry<Range>((range) => {
  range.views--
  giveBack(range)
})

function giveBack(range: Range): void {
  if (range.dropped && range.views === 0) munmapFunction(range.address, range.size)
}

/** A whole file mapped shared. */
export class SharedMapping {
  readonly size: number
  readonly writable: boolean
  readonly #range: Range
  readonly #guard: Guard
  readonly #windows: (Uint8Array | undefined)[]

  /** Maps `size` bytes of `fd`, which may be closed afterwards. Throws VmchannelError. */
  constructor(fd: number, size: number, writable: boolean) {
    const prot = writable ? PROT_READ_WRITE : PROT_READ
    const address = mmapFunction(0, size, prot, MAP_SHARED | MAP_NORESERVE, fd, 0)
    if (address === -1) throw systemError('mmap', `${size} bytes of guest memory`, 'ERR_VMCHANNEL_MEMORY')
    // Guest memory belongs neither into our core dumps nor into our children. Both are wishes: failing is fine.
    madviseFunction(address, size, MADV_DONTDUMP)
    madviseFunction(address, size, MADV_DONTFORK)
    this.size = size
    this.writable = writable
    this.#range = { address, size, views: 0, dropped: false }
    this.#guard = new Guard(address, size)
    this.#windows = new Array<Uint8Array | undefined>(Math.max(1, Math.ceil((size - WINDOW_OVERLAP) / STRIDE)))
  }

  get address(): number {
    return this.#range.address
  }

  /** Somebody has cut the file short, and we have met it: the whole mapping is zero pages now. */
  get lost(): boolean {
    return this.#guard.lost
  }

  /** Cuts [offset, offset + size) of the file into pieces, one per window. */
  pieces(offset: number, size: number): Piece[] {
    if (this.#range.dropped || offset < 0 || size <= 0 || offset + size > this.size)
      throw new RangeError('pieces outside the mapping')
    const pieces: Piece[] = []
    const end = offset + size
    for (let at = offset; at < end;) {
      const index = Math.min(Math.floor(at / STRIDE), this.#windows.length - 1)
      const start = index * STRIDE
      const stop = index === this.#windows.length - 1 ? end : Math.min(end, start + STRIDE)
      const view = (offset: number): Uint8Array => {
        const window = this.#window(index)
        return window.subarray(offset - start, Math.min(end - start, window.length))
      }
      pieces.push(new LazyPiece(at, stop - at, this.#range.address + at, view))
      at = stop
    }
    return pieces
  }

  /** Lets go of the memory. Views that somebody still holds read zeros from now on, and write into nothing shared. */
  drop(): void {
    const range = this.#range
    if (range.dropped) return
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
    const result = mmapFunction(range.address, range.size, PROT_READ_WRITE, flags, -1, 0)
    check(result === -1 ? -1 : 0, 'mmap', 'dropping guest memory', 'ERR_VMCHANNEL_MEMORY')
    range.dropped = true
    this.#guard.release()
    this.#windows.fill(undefined)
    giveBack(range)
  }

  #window(index: number): Uint8Array {
    const known = this.#windows[index]
    if (known) return known
    if (this.#range.dropped) throw new RangeError('a view of memory that is gone')
    const start = index * STRIDE
    const len = Math.min(WINDOW_SIZE, this.size - start)
    const buffer = viewNative(BigInt(this.#range.address + start), len)
    this.#range.views++
    registry.register(buffer, this.#range)
    return (this.#windows[index] = new Uint8Array(buffer))
  }
}

/** An anonymous file in memory, as VMMs make them for guest RAM; `seals` as F_SEAL_*. */
export function createMemfd(name: string, seals: boolean): number {
  const flags = MFD_CLOEXEC | (seals ? MFD_ALLOW_SEALING : 0)
  return check(memfdCreateFunction(name, flags), 'memfd_create', name, 'ERR_VMCHANNEL_MEMORY')
}

/** Forbids changes of a memfd's size, as QEMU does for guest RAM. */
export function sealMemfd(fd: number): void {
  const seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
  check(fcntlFunction(fd, F_ADD_SEALS, seals), 'fcntl', 'memfd', 'ERR_VMCHANNEL_MEMORY')
}
