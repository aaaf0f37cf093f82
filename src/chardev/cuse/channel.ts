/**
 * One CUSE device seen as messages: makes the node, reads requests, sends replies. What they mean is device.ts's
 * business, which owns it. All replies are copied by the kernel before `reply…` returns.
 */

import { existsSync } from 'node:fs'
import { VmchannelError } from '../../errors.ts'
import {
  addPart,
  beginReply,
  CUSE_NODE,
  fixedBuffer,
  openCuse,
  readRequest,
  roomForParts,
  sendReply,
  type FixedBuffer,
} from '../../ffi/cuse.ts'
import { closeFd } from '../../ffi/libc.ts'
import { Watch } from '../../ffi/poll.ts'
import type { Iovec } from '../../mem/iovec.ts'
import {
  BUFFER_LEN,
  CUSE_INIT,
  encodeInit,
  NOTIFY_POLL,
  OUT_HEADER,
  REQUEST_MAX,
  speaks,
  W_INIT_MAJOR,
  W_INIT_MINOR,
  W_OPCODE,
  W_UNIQUE,
  type CuseIdentity,
} from './wire.ts'

/** Requests answered before other events have their turn. */
const TURN = 64

/** One request, in memory that the next one overwrites. */
export interface Request {
  readonly opcode: number
  readonly unique: number
  readonly words: Uint32Array
  readonly bytes: Uint8Array
}

/** Where devices are made: the kernel, or a test in its place. */
export interface CuseDoor {
  /** An fd that gives requests and takes replies. */
  open(name: string): number
  /** After the answer to CUSE_INIT was taken; throws VmchannelError where there is no node. */
  verify(name: string): void
}

/** Calls come from the event loop, or from inside `serve`. */
export interface ChannelOwner {
  handle(request: Request): void
  /** The event loop has brought requests, and they were dealt with. */
  served(): void
  /** The kernel has ended the device. */
  lost(): void
}

// One of each for all devices: a request is dealt with, or copied, before the next one is read.
const input = fixedBuffer(BUFFER_LEN)
const words = new Uint32Array(input.bytes.buffer)
const header = fixedBuffer(OUT_HEADER + 16)
const headerWords = new Uint32Array(header.bytes.buffer)
let bounce: FixedBuffer | undefined

export class CuseChannel {
  readonly #fd: number
  readonly #watch: Watch
  readonly #owner: ChannelOwner
  #open = true

  /** Makes /dev/NAME, which is there when this returns. Throws VmchannelError. */
  constructor(identity: CuseIdentity, owner: ChannelOwner, door: CuseDoor = KERNEL) {
    this.#fd = door.open(identity.name)
    this.#owner = owner
    try {
      this.#initialise(identity)
      door.verify(identity.name)
    } catch (error) {
      closeFd(this.#fd)
      throw error
    }
    this.#watch = new Watch(this.#fd, () => {
      if (this.serve()) this.#owner.served()
    })
    this.#watch.want(true, false)
  }

  get open(): boolean {
    return this.#open
  }

  #initialise(identity: CuseIdentity): void {
    const len = readRequest(this.#fd, input)
    const kernel = { major: words[W_INIT_MAJOR]!, minor: words[W_INIT_MINOR]! }
    if (len <= 0 || words[W_OPCODE] !== CUSE_INIT || !speaks(kernel))
      throw new VmchannelError(
        'ERR_VMCHANNEL_PLATFORM',
        `${CUSE_NODE} speaks version ${kernel.major}.${kernel.minor}`,
        {
          hint: 'Version 7.12 or later of 7 is needed: Linux 2.6.31.',
        },
      )
    const answer = fixedBuffer(128)
    const bytes = encodeInit(kernel, identity)
    const whole = bytes.length <= answer.bytes.length ? answer : fixedBuffer(bytes.length)
    whole.bytes.set(bytes)
    this.#begin(uniqueAt(W_UNIQUE), bytes.length)
    addPart(whole.address, bytes.length)
    // The kernel makes the node while it takes this answer.
    if (!sendReply(this.#fd)) throw nameTaken(identity.name)
  }

  /** Deals with the requests that are there; also called where somebody expects one. True: there was at least one. */
  serve(most: number = TURN): boolean {
    let some = false
    for (let i = 0; i < most && this.#open; i++) {
      const len = readRequest(this.#fd, input)
      if (len === 0) break
      if (len < 0) {
        this.close()
        this.#owner.lost()
        break
      }
      some = true
      this.#owner.handle({ opcode: words[W_OPCODE]!, unique: uniqueAt(W_UNIQUE), words, bytes: input.bytes })
    }
    return some
  }

  /** An error, as a positive number; 0: done, with nothing to say. */
  reply(unique: number, error = 0): boolean {
    this.#begin(unique, 0, -error)
    return sendReply(this.#fd)
  }

  /** Two or four words. */
  replyWords(unique: number, a: number, b: number, c?: number, d?: number): boolean {
    const len = c === undefined ? 8 : 16
    this.#begin(unique, len)
    headerWords[4] = a
    headerWords[5] = b
    headerWords[6] = c ?? 0
    headerWords[7] = d ?? 0
    beginReply()
    addPart(header.address, OUT_HEADER + len)
    return sendReply(this.#fd)
  }

  /** Bytes from a list, as many as `max`; returns how many. */
  replyList(unique: number, list: Iovec, skip: number, max: number): number {
    let done = 0
    let bounced = 0
    this.#begin(unique, 0)
    for (let i = 0; i < list.count && done < max && roomForParts(); i++) {
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
      addPart(address, len)
      done += len
    }
    headerWords[0] = OUT_HEADER + done
    return sendReply(this.#fd) ? done : 0
  }

  /** Tells the kernel to ask again about a poll. */
  wake(low: number, high: number): void {
    headerWords[0] = OUT_HEADER + 8
    headerWords[1] = NOTIFY_POLL
    headerWords[2] = headerWords[3] = 0
    headerWords[4] = low
    headerWords[5] = high
    beginReply()
    addPart(header.address, OUT_HEADER + 8)
    sendReply(this.#fd)
  }

  /** The node goes; who still has it open gets ENOTCONN. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#watch.close()
    closeFd(this.#fd)
  }

  #begin(unique: number, more: number, error = 0): void {
    headerWords[0] = OUT_HEADER + more
    headerWords[1] = error
    headerWords[2] = unique % 2 ** 32
    headerWords[3] = Math.floor(unique / 2 ** 32)
    beginReply()
    addPart(header.address, OUT_HEADER)
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
