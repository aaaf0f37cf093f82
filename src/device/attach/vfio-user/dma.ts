/**
 * DMA_MAP and DMA_UNMAP: what the guest's addresses mean. Called by the session; fills GuestMemory.
 *
 * Mapping and unmapping are edits of a table; the memory itself is mapped once per file (see backing.ts). Memory that
 * comes without a descriptor is remembered too: the device cannot reach it, and somebody will ask why.
 */

import { describeError } from '../../../errors.ts'
import { foreignFile } from '../../../ffi/file-system.ts'
import { closeFd } from '../../../ffi/libc.ts'
import { inspectFile, type Piece } from '../../../ffi/mmap.ts'
import type { Log } from '../../../log.ts'
import { hex, type GuestMemory, type Region } from '../../../mem/guest-memory.ts'
import type { Store } from '../../../store.ts'
import { Backings, fileKey, type Backing } from './backing.ts'
import {
  DMA_FLAG,
  DMA_MAP,
  DMA_UNMAP,
  ERRNO,
  getU64,
  HEADER_SIZE,
  setU64,
  UNMAP_ALL,
  type Message,
  type Reply,
} from './wire.ts'

/** QEMU's own limit (max_dma_maps). */
const MAX_MAPS = 65535
const PAGE = 4096
/** Most memory in one mapping: each gigabyte of it is a region, and one message must not make ever so many. */
const MAX_SIZE = 2 ** 44
const MEMORY_HINT = 'memory-backend-memfd is always taken, and memory-backend-file on tmpfs, hugetlbfs or a local disk'
/** Lines that one VMM may fill the log with. */
const MAX_COMPLAINTS = 8

/** Guest memory that the VMM keeps for itself. */
export interface UnsharedMemory {
  address: number
  size: number
}

interface Entry {
  readonly iova: number
  readonly size: number
  readonly flags: number
  readonly offset: number
  /** The file; undefined for memory that is not shared. */
  readonly identity: string | undefined
  readonly file: string | undefined
  readonly backing: Backing | undefined
}

/** The note of a mapping; its name is the address. */
type KeptMap = Pick<Entry, 'size' | 'flags' | 'offset' | 'file'>

/** A piece of a file, as guest memory; its view is made when it is first touched. */
class DmaRegion implements Region {
  readonly base: number
  readonly size: number
  readonly address: number
  readonly writable: boolean
  readonly #piece: Piece
  #bytes: Uint8Array | undefined

  constructor(base: number, piece: Piece, writable: boolean) {
    this.base = base
    this.size = piece.size
    this.address = piece.address
    this.writable = writable
    this.#piece = piece
  }

  get bytes(): Uint8Array {
    return this.#bytes ?? (this.#bytes = this.#piece.bytes)
  }
}

export class DmaTable {
  readonly #memory: GuestMemory
  readonly #log: Log
  readonly #backings: Backings
  readonly #store: Store | undefined
  /** Sorted by iova, never overlapping. */
  readonly #entries: Entry[] = []
  /** What of the mappings of the process before could not be had again. */
  incomplete: string | undefined
  #warnedUnsealed = false
  #complaints = 0

  constructor(memory: GuestMemory, log: Log, store?: Store) {
    this.#memory = memory
    this.#log = log
    this.#store = store?.scope('map')
    this.#backings = new Backings(undefined, store?.scope('file'))
    if (store) this.#resume(store)
  }

  get count(): number {
    return this.#entries.length
  }

  /** DMA_MAP: 0, or -errno. */
  map(message: Message): number {
    const { view, at, len, fds } = message
    if (len !== DMA_MAP.size || view.getUint32(at + DMA_MAP.argsz, true) < DMA_MAP.size) return -ERRNO.EINVAL
    const flags = view.getUint32(at + DMA_MAP.flags, true) & (DMA_FLAG.READ | DMA_FLAG.WRITE)
    const offset = getU64(view, at + DMA_MAP.offset)
    const iova = getU64(view, at + DMA_MAP.iova)
    const size = getU64(view, at + DMA_MAP.len)
    if (flags === 0 || fds.length > 1 || !(size > 0)) return -ERRNO.EINVAL
    if (!(iova + size <= Number.MAX_SAFE_INTEGER && offset + size <= Number.MAX_SAFE_INTEGER)) return -ERRNO.EINVAL
    if (iova % PAGE !== 0 || size % PAGE !== 0 || offset % PAGE !== 0) return -ERRNO.EINVAL
    const fd = fds[0]
    return fd === undefined ? this.#mapUnshared(iova, size, flags) : this.#mapFile(fd, offset, iova, size, flags)
  }

  /** DMA_UNMAP: the length of the reply, or -errno. */
  unmap(message: Message, reply: Reply): number {
    const { view, at, len } = message
    if (len < DMA_UNMAP.size || view.getUint32(at + DMA_UNMAP.argsz, true) < DMA_UNMAP.size) return -ERRNO.EINVAL
    const flags = view.getUint32(at + DMA_UNMAP.flags, true)
    const iova = getU64(view, at + DMA_UNMAP.iova)
    const size = getU64(view, at + DMA_UNMAP.len)
    if (flags === UNMAP_ALL) {
      if (iova !== 0 || size !== 0) return -ERRNO.EINVAL
      this.#removeAll()
    } else {
      if (flags !== 0 || !(size > 0)) return -ERRNO.EINVAL
      const error = this.#unmapRange(iova, size)
      if (error < 0) return error
    }
    reply.view.setUint32(HEADER_SIZE + DMA_UNMAP.argsz, DMA_UNMAP.size, true)
    reply.view.setUint32(HEADER_SIZE + DMA_UNMAP.flags, flags, true)
    setU64(reply.view, HEADER_SIZE + DMA_UNMAP.iova, iova)
    setU64(reply.view, HEADER_SIZE + DMA_UNMAP.len, size)
    return DMA_UNMAP.size
  }

  /** The unshared memory at `address`, where it is that. */
  unsharedAt(address: number): UnsharedMemory | undefined {
    const entry = this.#entries[this.#indexFrom(address + 1) - 1]
    if (!entry || entry.backing || address >= entry.iova + entry.size) return undefined
    return { address: entry.iova, size: entry.size }
  }

  /**
   * The largest writable memory that is not shared, where nothing writable is shared at all: the VMM was started
   * without shared guest memory. (Video memory and the like is never shared and does not count beside shared RAM.)
   */
  nothingShared(): UnsharedMemory | undefined {
    const writable = this.#entries.filter((e) => (e.flags & DMA_FLAG.WRITE) !== 0)
    if (writable.length === 0 || writable.some((e) => e.backing)) return undefined
    const { iova, size } = writable.reduce((a, b) => (b.size > a.size ? b : a))
    return { address: iova, size }
  }

  /** Whether guest memory has gone: somebody cut its file short. */
  get lost(): boolean {
    return this.#backings.lost
  }

  /** Forgets everything and lets go of all guest memory. */
  close(): void {
    this.#removeAll()
    this.#backings.close()
  }

  #mapUnshared(iova: number, size: number, flags: number): number {
    const entry = { iova, size, flags, offset: 0, identity: undefined, file: undefined, backing: undefined }
    return this.#has(entry) ? 0 : this.#insert(entry)
  }

  #mapFile(fd: number, offset: number, iova: number, size: number, flags: number): number {
    const foreign = foreignFile(fd)
    if (foreign !== undefined) return this.#refuse(iova, size, `${foreign}; ${MEMORY_HINT}`)
    const facts = inspectFile(fd)
    if (!facts?.regular) return this.#refuse(iova, size, 'what came with it is not a file')
    if (facts.size < offset + size) return this.#refuse(iova, size, `its file has only ${facts.size} bytes`)
    if (size > MAX_SIZE) return this.#refuse(iova, size, `one mapping may have ${MAX_SIZE} bytes`)
    if (!facts.writable && (flags & DMA_FLAG.WRITE) !== 0) return this.#refuse(iova, size, 'its file is read-only')
    if (!facts.sealed && !this.#warnedUnsealed) {
      this.#warnedUnsealed = true
      this.#log.debug(
        'guest memory is a file that could be cut short, which would cost this VM its device; memory-backend-memfd cannot',
      )
    }
    if (this.#has({ iova, size, flags, offset, identity: facts.identity })) return 0
    let backing: Backing
    try {
      backing = this.#backings.acquire(fd, facts)
    } catch (error) {
      this.#complain(`guest memory at ${hex(iova)} of ${size} bytes cannot be mapped: ${describeError(error)}`)
      return -ERRNO.ENOMEM
    }
    const entry = { iova, size, flags, offset, identity: facts.identity, file: fileKey(facts), backing }
    const result = this.#insert(entry)
    if (result < 0) this.#backings.release(backing)
    else this.#addRegions(entry)
    return result
  }

  /** What the process before had mapped: all of it, or the device would not see what its VMM has told it to. */
  #resume(store: Store): void {
    const files = store.scope('file')
    const fds = new Map(files.left().map((key) => [key, files.recall(key)!.fds[0]!]))
    for (const name of this.#store!.left()) {
      const { size, flags, offset, file } = JSON.parse(this.#store!.recall(name)!.note) as KeptMap
      const fd = file === undefined ? undefined : fds.get(file)
      let result: number = -ERRNO.EINVAL
      if (file === undefined) result = this.#mapUnshared(Number(name), size, flags)
      else if (fd !== undefined) result = this.#mapFile(fd, offset, Number(name), size, flags)
      if (result < 0) this.incomplete ??= `guest memory at ${hex(Number(name))} of ${size} bytes cannot be mapped again`
    }
    for (const fd of fds.values()) closeFd(fd)
  }

  #refuse(iova: number, size: number, why: string): number {
    this.#complain(`guest memory at ${hex(iova)} of ${size} bytes refused: ${why}`)
    return -ERRNO.EINVAL
  }

  #complain(line: string): void {
    if (this.#complaints++ < MAX_COMPLAINTS) this.#log.warn(line)
  }

  /** Whether the very same mapping is there already: saying it twice is allowed. */
  #has(wanted: Omit<Entry, 'backing' | 'file'>): boolean {
    const known = this.#entries[this.#indexFrom(wanted.iova)]
    if (known?.iova !== wanted.iova || known.size !== wanted.size || known.flags !== wanted.flags) return false
    return known.identity === wanted.identity && known.offset === wanted.offset
  }

  #insert(entry: Entry): number {
    const index = this.#indexFrom(entry.iova)
    const before = this.#entries[index - 1]
    const after = this.#entries[index]
    if ((before && before.iova + before.size > entry.iova) || (after && entry.iova + entry.size > after.iova))
      return -ERRNO.EEXIST
    if (this.#entries.length >= MAX_MAPS) return -ERRNO.ENOSPC
    this.#entries.splice(index, 0, entry)
    const { iova, size, flags, offset, file } = entry
    const note: KeptMap = { size, flags, offset, file }
    this.#store?.keep(String(iova), [], JSON.stringify(note))
    return 0
  }

  #addRegions({ iova, size, flags, offset, backing }: Entry & { backing: Backing }): void {
    const writable = (flags & DMA_FLAG.WRITE) !== 0
    const pieces = backing.mapping.pieces(offset, size)
    this.#memory.add(...pieces.map((piece) => new DmaRegion(iova + piece.offset - offset, piece, writable)))
  }

  /**
   * A virtual IOMMU takes back ranges in which there are many mappings, or none; as in the kernel's VFIO, no mapping is
   * split.
   */
  #unmapRange(iova: number, size: number): number {
    const from = this.#indexFrom(iova)
    const to = this.#indexFrom(iova + size)
    const before = this.#entries[from - 1]
    if (before && before.iova + before.size > iova) return -ERRNO.EINVAL
    const last = this.#entries[to - 1]
    if (to > from && last!.iova + last!.size > iova + size) return -ERRNO.EINVAL
    const gone = this.#entries.splice(from, to - from)
    if (gone.length > 0) this.#memory.remove(iova, size)
    for (const entry of gone) {
      this.#store?.forget(String(entry.iova))
      if (entry.backing) this.#backings.release(entry.backing)
    }
    return 0
  }

  #removeAll(): void {
    const entries = this.#entries.splice(0)
    if (entries.length === 0) return
    this.#store?.clear()
    this.#memory.clear()
    for (const entry of entries) if (entry.backing) this.#backings.release(entry.backing)
  }

  /** Index of the first entry at or above `iova`. */
  #indexFrom(iova: number): number {
    let low = 0
    let high = this.#entries.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#entries[middle]!.iova < iova) low = middle + 1
      else high = middle
    }
    return low
  }
}
