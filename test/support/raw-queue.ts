/**
 * One split virtqueue written by hand, for drivers without manners: of the tests (hostile/raw-driver.ts) and of the
 * conformance suite. Nothing is checked and nothing is remembered but the two indices.
 *
 * All in one region: descriptor table at 0, something like an indirect table may be put at 0x4000, available ring at
 * 0x8000, used ring at 0xa000. A page for each descriptor lies elsewhere.
 */

import type { Region } from '../../src/mem/guest-memory.ts'
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/spec/split.ts'

export const RING_LEN: number = 64 << 10
export const PAGE_LEN = 4096
const AVAIL = 0x8000
const USED = 0xa000

export interface RawSegment {
  address: number
  len: number
  write?: boolean
}

export interface UsedEntry {
  id: number
  len: number
}

export class RawQueue {
  readonly index: number
  readonly size: number
  readonly region: Region
  readonly pages: Region
  readonly at: { desc: number; avail: number; used: number }
  readonly view: DataView
  availIdx = 0
  seenUsed = 0
  /** The descriptor that `chain` takes next. */
  next = 0
  readonly #notify: (index: number) => void

  /** `region` has RING_LEN bytes, `pages` PAGE_LEN for each entry. */
  constructor(index: number, size: number, region: Region, pages: Region, notify: (index: number) => void) {
    this.index = index
    this.size = size
    this.region = region
    this.pages = pages
    this.#notify = notify
    this.view = new DataView(region.bytes.buffer, region.bytes.byteOffset, RING_LEN)
    this.at = { desc: region.base, avail: region.base + AVAIL, used: region.base + USED }
  }

  desc(i: number, address: number, len: number, flags: number, next = 0): void {
    writeDesc(this.view, i * 16, address, len, flags, next)
  }

  /** Puts a head into the next slot and moves the index; without a notification. */
  avail(head: number): void {
    this.setAvailRing(this.availIdx, head)
    this.setAvailIdx(this.availIdx + 1)
  }
  setAvailRing(idx: number, head: number): void {
    this.view.setUint16(AVAIL + 4 + 2 * (idx % this.size), head, true)
  }
  setAvailIdx(idx: number): void {
    this.availIdx = idx & 0xffff
    this.view.setUint16(AVAIL + 2, this.availIdx, true)
  }
  setAvailFlags(flags: number): void {
    this.view.setUint16(AVAIL, flags, true)
  }
  setUsedEvent(idx: number): void {
    this.view.setUint16(AVAIL + 4 + 2 * this.size, idx, true)
  }
  notify(): void {
    this.#notify(this.index)
  }

  get usedIdx(): number {
    return this.view.getUint16(USED + 2, true)
  }
  get usedFlags(): number {
    return this.view.getUint16(USED, true)
  }
  get availEvent(): number {
    return this.view.getUint16(USED + 4 + 8 * this.size, true)
  }

  /** The used entries since the last call. */
  takeUsed(): UsedEntry[] {
    const list: UsedEntry[] = []
    for (; this.seenUsed !== this.usedIdx; this.seenUsed = (this.seenUsed + 1) & 0xffff) {
      const at = USED + 4 + 8 * (this.seenUsed % this.size)
      list.push({ id: this.view.getUint32(at, true), len: this.view.getUint32(at + 4, true) })
    }
    return list
  }

  page(i: number): Uint8Array {
    return this.pages.bytes.subarray(i * PAGE_LEN, (i + 1) * PAGE_LEN)
  }
  pageAddress(i: number): number {
    return this.pages.base + i * PAGE_LEN
  }
  /** A whole page for the device to write, as Linux posts them: page i under descriptor i. */
  postPage(i: number, len: number = PAGE_LEN): void {
    this.desc(i, this.pageAddress(i), len, VIRTQ_DESC_F_WRITE)
    this.avail(i)
  }

  /** Writes a chain into the next descriptors, without making it available; gives its head. */
  lay(segments: readonly RawSegment[]): number {
    const head = this.next
    segments.forEach(({ address, len, write = false }, i) => {
      const more = i + 1 < segments.length
      const flags = (write ? VIRTQ_DESC_F_WRITE : 0) | (more ? VIRTQ_DESC_F_NEXT : 0)
      const following = (this.next + 1) % this.size
      this.desc(this.next, address, len, flags, more ? following : 0)
      this.next = following
    })
    return head
  }

  /** The same, and available. */
  chain(segments: readonly RawSegment[]): number {
    const head = this.lay(segments)
    this.avail(head)
    return head
  }

  /** One readable buffer with these bytes, in a page; without a notification. */
  put(bytes: Uint8Array): number {
    const page = this.next
    this.page(page).set(bytes)
    return this.chain([{ address: this.pageAddress(page), len: bytes.length }])
  }
}

export function writeDesc(view: DataView, at: number, address: number, len: number, flags: number, next: number): void {
  view.setUint32(at, address % 2 ** 32, true)
  view.setUint32(at + 4, Math.floor(address / 2 ** 32), true)
  view.setUint32(at + 8, len, true)
  view.setUint16(at + 12, flags, true)
  view.setUint16(at + 14, next, true)
}
