/**
 * One CUSE device seen as messages: makes the node, reads requests, sends replies. What they mean is device.ts's
 * business, which owns it. All replies are copied by the kernel before `reply…` returns.
 */

import { existsSync } from 'node:fs'
import { VmchannelError } from '../../errors.ts'
import { CUSE_NODE, fixedBuffer, openCuse, Parts, type FixedBuffer } from '../../ffi/cuse.ts'
import { closeFd } from '../../ffi/libc.ts'
import { Watch } from '../../ffi/poll.ts'
import type { Iovec } from '../../mem/iovec.ts'
import {
  CUSE_INIT,
  encodeInit,
  NOTIFY_POLL,
  OUT_HEADER,
  REQUEST_MAX,
  speaks,
  W_INIT_MAJOR,
  W_INIT_MINOR,
  W_OPCODE,
  W_SIZE,
  W_UNIQUE,
  WRITE_DATA,
  type CuseIdentity,
} from './wire.ts'

/** Where devices are made: the kernel, or a test in its place. */
export interface CuseDoor {
  /** An fd that gives requests and takes replies. */
  open(name: string): number
  /** After the answer to CUSE_INIT was taken; throws VmchannelError where there is no node. */
  verify(name: string): void
}

// One of each for all devices: a request is dealt with, or copied, before the next one is read.
const head = fixedBuffer(WRITE_DATA)
/** The request that `receive` has found: its header, and what stands before the bytes of a write. */
export const words: Uint32Array = new Uint32Array(head.bytes.buffer)
/** Bytes of a write for which nobody had lent memory. */
const rest = fixedBuffer(REQUEST_MAX)
const input = new Parts()
input.add(head.address, WRITE_DATA)
const header = fixedBuffer(OUT_HEADER + 16)
const headerWords = new Uint32Array(header.bytes.buffer)
const output = new Parts()
let bounce: FixedBuffer | undefined

/** What `receive` says. */
export const NOTHING = 0
export const REQUEST = 1
export const LOST = -1
export type Found = typeof NOTHING | typeof REQUEST | typeof LOST

export class CuseChannel {
  /** Of a WRITE: its bytes, and how many of them lie in the memory that was lent. */
  len = 0
  lent = 0
  readonly #fd: number
  readonly #watch: Watch
  #open = true

  /** Makes /dev/NAME, which is there when this returns; `ready` is called when it has requests. Throws VmchannelError. */
  constructor(identity: CuseIdentity, ready: () => void, door: CuseDoor = KERNEL) {
    this.#fd = door.open(identity.name)
    try {
      this.#initialise(identity)
      door.verify(identity.name)
    } catch (error) {
      closeFd(this.#fd)
      throw error
    }
    this.#watch = new Watch(this.#fd, ready)
    this.#watch.want(true, false)
  }

  get open(): boolean {
    return this.#open
  }
  get fd(): number {
    return this.#fd
  }

  #initialise(identity: CuseIdentity): void {
    const found = this.receive(undefined)
    const kernel = { major: words[W_INIT_MAJOR]!, minor: words[W_INIT_MINOR]! }
    if (found !== REQUEST || words[W_OPCODE] !== CUSE_INIT || !speaks(kernel))
      throw new VmchannelError(
        'ERR_VMCHANNEL_PLATFORM',
        `${CUSE_NODE} speaks version ${kernel.major}.${kernel.minor}`,
        {
          hint: 'Version 7.12 or later of 7 is needed: Linux 2.6.31.',
        },
      )
    const bytes = encodeInit(kernel, identity)
    const answer = fixedBuffer(bytes.length)
    answer.bytes.set(bytes)
    this.#begin(uniqueAt(W_UNIQUE), bytes.length)
    output.add(answer.address, bytes.length)
    // The kernel makes the node while it takes this answer.
    if (!this.#send()) throw nameTaken(identity.name)
  }

  /**
   * Looks for a request. The bytes of a write land in `list`, as far as that has addresses, and from there on in
   * memory of our own (`more`).
   */
  receive(list: Iovec | undefined): Found {
    let room = REQUEST_MAX
    input.cut(1)
    if (list)
      for (let i = 0; i < list.count && room > 0 && list.address[i] !== 0; i++) {
        const part = Math.min(room, list.len[i]!)
        input.add(list.address[i]!, part)
        room -= part
      }
    // The kernel asks for room for the largest request, whatever comes.
    if (room > 0) input.add(rest.address, room)
    const got = input.read(this.#fd)
    if (got <= 0) return got === 0 ? NOTHING : LOST
    this.len = Math.max(0, Math.min(words[W_SIZE]!, got - WRITE_DATA))
    this.lent = Math.min(this.len, REQUEST_MAX - room)
    return REQUEST
  }

  /** The bytes of a write that are not in lent memory; until the next `receive`. */
  get more(): Uint8Array {
    return rest.bytes.subarray(0, this.len - this.lent)
  }

  /** An error, as a positive number; 0: done, with nothing to say. */
  reply(unique: number, error = 0): boolean {
    this.#begin(unique, 0, -error)
    return this.#send()
  }

  /** Two or four words. */
  replyWords(unique: number, a: number, b: number, c?: number, d?: number): boolean {
    const len = c === undefined ? 8 : 16
    headerWords[4] = a
    headerWords[5] = b
    headerWords[6] = c ?? 0
    headerWords[7] = d ?? 0
    this.#begin(unique, len)
    output.cut(0)
    output.add(header.address, OUT_HEADER + len)
    return this.#send()
  }

  /** Bytes from a list, as many as `max`; returns how many. */
  replyList(unique: number, list: Iovec, skip: number, max: number): number {
    let done = 0
    let bounced = 0
    this.#begin(unique, 0)
    for (let i = 0; i < list.count && done < max && !output.full; i++) {
      let len = list.len[i]!
      if (skip >= len) {
        skip -= len
        continue
      }
      const from = skip
      len = Math.min(len - from, max - done)
      skip = 0
      let address = list.address[i]!
      if (address === 0) {
        bounce ??= fixedBuffer(REQUEST_MAX)
        const offset = list.offset[i]! + from
        bounce.bytes.set(list.bytes[i]!.subarray(offset, offset + len), bounced)
        address = bounce.address + bounced
        bounced += len
      } else address += from
      output.add(address, len)
      done += len
    }
    headerWords[0] = OUT_HEADER + done
    return this.#send() ? done : 0
  }

  /** Tells the kernel to ask again about a poll. */
  wake(low: number, high: number): void {
    headerWords[0] = OUT_HEADER + 8
    headerWords[1] = NOTIFY_POLL
    headerWords[2] = headerWords[3] = 0
    headerWords[4] = low
    headerWords[5] = high
    output.cut(0)
    output.add(header.address, OUT_HEADER + 8)
    this.#send()
  }

  /** The node goes; who still has it open gets ENOTCONN. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#watch.close()
    closeFd(this.#fd)
  }

  /** False when the kernel does not want it. A port may break while a request is dealt with: the fd is not ours then. */
  #send(): boolean {
    return this.#open && output.write(this.#fd)
  }

  #begin(unique: number, more: number, error = 0): void {
    headerWords[0] = OUT_HEADER + more
    headerWords[1] = error
    headerWords[2] = unique
    headerWords[3] = unique / 2 ** 32
    output.cut(0)
    output.add(header.address, OUT_HEADER)
  }
}

export function uniqueAt(at: number): number {
  return words[at]! + words[at + 1]! * 2 ** 32
}

const KERNEL: CuseDoor = { open: openDevice, verify: verifyNode }

function nameTaken(name: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_IN_USE', `the kernel does not make /dev/${name}`, {
    hint: 'A device of that name or number exists already; dmesg says more.',
  })
}

function verifyNode(name: string): void {
  if (!existsSync(`/sys/class/cuse/${name.replaceAll('/', '!')}`)) throw nameTaken(name)
  if (!existsSync(`/dev/${name}`))
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `the kernel made the device ${name}, but no node for it`, {
      hint: 'Mount devtmpfs at /dev: mount -t devtmpfs dev /dev.',
    })
}

function openDevice(name: string): number {
  if (existsSync(`/dev/${name}`))
    throw new VmchannelError('ERR_VMCHANNEL_IN_USE', `/dev/${name} exists already`, {
      hint: 'Another driver made it; choose another name.',
    })
  try {
    return openCuse()
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code ?? 'unknown error'
    const missing = errno === 'ENOENT' || errno === 'ENODEV'
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `${CUSE_NODE} cannot be opened: ${errno}`, {
      errno,
      cause,
      hint: missing
        ? 'Load the module: modprobe cuse. Debian has it in linux-image-*, Ubuntu in linux-modules-extra-*.'
        : 'Character devices can be made by root only.',
    })
  }
}
