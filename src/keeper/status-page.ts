/**
 * A page of memory that a device process shares with its keeper: what has to be known of a process that is dead. Both
 * ends use this file.
 */

import { ftruncateSync } from 'node:fs'
import { closeFd } from '../ffi/libc.ts'
import { createMemfd, SharedMapping } from '../ffi/mmap.ts'

const PAGE_LEN = 4096
/** Changes wait to be told, or cannot be told any more: what the keeper holds is old. */
const BEHIND = 0

/** The keeper's: a new page. The descriptor is the caller's. */
export function createStatusPage(): { fd: number; page: StatusPage } {
  const fd = createMemfd('vmchannel-status', false)
  try {
    ftruncateSync(fd, PAGE_LEN)
    return { fd, page: new StatusPage(fd) }
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

export class StatusPage {
  readonly #mapping: SharedMapping
  readonly #bytes: Uint8Array

  constructor(fd: number) {
    this.#mapping = new SharedMapping(fd, PAGE_LEN, true)
    this.#bytes = this.#mapping.pieces(0, PAGE_LEN)[0]!.bytes
  }

  get behind(): boolean {
    return this.#bytes[BEHIND] !== 0
  }
  set behind(on: boolean) {
    this.#bytes[BEHIND] = on ? 1 : 0
  }

  close(): void {
    this.#mapping.drop()
  }
}
