/**
 * A port as a character device of the guest: programs open, read, write and poll /dev/vmchN as if the kernel drove it.
 *
 * Nothing is queued here: a read is answered straight from the ring, a write goes straight into it, and what does not
 * fit stays with the program that waits. It behaves as Linux's own ports do, with these differences: a blocking write
 * is taken whole (Linux takes 32 KiB at a time), a host that is away is POLLHUP without POLLIN (no busy loop), and
 * there is no SIGIO (CUSE has none).
 */

import type { Iovec } from '../../mem/iovec.ts'
import type { Chardev, ChardevEnd } from '../chardev.ts'
import type { BusyLoop } from './busy-loop.ts'
import { CuseChannel, uniqueAt, type ChannelOwner, type CuseDoor, type Request } from './channel.ts'
import * as wire from './wire.ts'

/** Programs that wait at one device: threads, each with at most one request. More are told ENOMEM. */
const WAITING_MAX = 256

export interface CuseOptions extends wire.CuseIdentity {
  /** Several programs may have it open; otherwise the second one gets EBUSY. */
  share?: boolean
  /** Told of devices that have requests. */
  busy?: BusyLoop
  /** Tests only: what stands for the kernel. */
  door?: CuseDoor
}

interface Waiting {
  readonly unique: number
  readonly len: number
  /** Bytes of a write that were taken. */
  done: number
  /** What is to be written from byte `base` on; lent by the channel until the request has to wait. */
  data: Uint8Array
  base: number
}

/** What an open file wants to be told of. */
interface Open {
  polling: boolean
  low: number
  high: number
}

export class CuseDevice implements Chardev {
  readonly label: string
  readonly place: string
  /** Opens refused because the device was in use, and requests refused because too many were waiting. */
  refused = 0
  readonly #end: ChardevEnd
  readonly #share: boolean
  readonly #channel: CuseChannel
  readonly #busy: BusyLoop | undefined
  readonly #opens = new Map<number, Open>()
  #nextFile = 1
  readonly #reads: Waiting[] = []
  readonly #writes: Waiting[] = []
  #reading = false
  #hostOpen = false
  /** The port has bytes that nobody has read. */
  #input = false

  /** Makes the node; throws VmchannelError. */
  constructor(options: CuseOptions, end: ChardevEnd) {
    this.#end = end
    this.#share = options.share ?? false
    this.place = `/dev/${options.name}`
    this.label = `cuse:${options.name}`
    this.#busy = options.busy
    const owner: ChannelOwner = {
      handle: (request) => this.#handle(request),
      served: () => {
        this.#busy?.touch(this)
        this.#busy?.run()
      },
      lost: () => this.#lost(),
    }
    this.#channel = new CuseChannel(options, owner, options.door)
  }

  get connected(): boolean {
    return this.#opens.size > 0
  }

  /** Whether the host has the port open: without it there is nothing to wait for. */
  setHostOpen(open: boolean): void {
    if (this.#hostOpen === open) return
    this.#hostOpen = open
    if (!open) {
      // What came before the end is read before the end is.
      this.#end.writable()
      if (!this.#input) for (const read of this.#reads.splice(0)) this.#channel.reply(read.unique)
    }
    this.#wake()
  }

  /** Deals with requests that are there now, at most so many; true when there were some. */
  serve(most: number): boolean {
    return this.#channel.serve(most)
  }

  // --- Chardev

  writev(list: Iovec): number {
    let done = 0
    while (done < list.total) {
      const read = this.#reads[0]
      if (!read) break
      this.#reads.shift()
      done += this.#channel.replyList(read.unique, list, done, read.len)
    }
    if (done > 0) this.#busy?.touch(this)
    this.#input = done < list.total
    if (this.#input) this.#wake()
    return done
  }

  readv(list: Iovec): number {
    const write = this.#writes[0]
    if (!write) return 0
    const { done, base, data } = write
    const taken = list.copyFrom(done === base ? data : data.subarray(done - base))
    write.done += taken
    if (write.done === write.len) {
      this.#writes.shift()
      this.#channel.replyWords(write.unique, write.len, 0)
    }
    return taken
  }

  setReading(on: boolean): void {
    if (this.#reading === on) return
    this.#reading = on
    if (!on) return
    if (this.#writes.length > 0) queueMicrotask(() => this.#reading && this.#end.readable())
    else this.#wake()
  }

  discardInput(): number {
    let bytes = 0
    for (const write of this.#writes.splice(0)) {
      bytes += write.len - write.done
      this.#channel.replyWords(write.unique, write.len, 0)
    }
    return bytes
  }

  disconnect(): void {}

  close(): void {
    if (!this.#channel.open) return
    this.#hostOpen = false
    this.#refuseAll()
    this.#channel.close()
    this.#busy?.forget(this)
  }

  // --- requests

  #handle({ opcode, unique, words, bytes }: Request): void {
    if (opcode === wire.FUSE_READ) this.#read(unique, words)
    else if (opcode === wire.FUSE_WRITE) this.#write(unique, words, bytes)
    else if (opcode === wire.FUSE_POLL) this.#poll(unique, words)
    else if (opcode === wire.FUSE_OPEN) this.#openFile(unique)
    else if (opcode === wire.FUSE_RELEASE) this.#release(unique, words)
    else if (opcode === wire.FUSE_INTERRUPT) this.#interrupt(uniqueAt(wire.W_VICTIM))
    else this.#channel.reply(unique, opcode === wire.FUSE_IOCTL ? wire.ENOTTY : wire.ENOSYS)
  }

  #openFile(unique: number): void {
    if (this.#opens.size > 0 && !this.#share) {
      this.refused++
      this.#channel.reply(unique, wire.EBUSY)
      return
    }
    const file = this.#nextFile++
    const first = this.#opens.size === 0
    this.#opens.set(file, { polling: false, low: 0, high: 0 })
    if (first) this.#end.setConnected(true)
    if (!this.#channel.replyWords(unique, file, 0, 0, 0)) this.#forget(file)
  }

  /** The program that closes waits for the answer: the next one cannot be early. */
  #release(unique: number, words: Uint32Array): void {
    this.#forget(words[wire.W_FH]!)
    this.#channel.reply(unique)
  }

  #forget(file: number): void {
    if (this.#opens.delete(file) && this.#opens.size === 0) {
      this.#input = false
      this.#end.setConnected(false)
    }
  }

  #read(unique: number, words: Uint32Array): void {
    const read: Waiting = { unique, len: words[wire.W_SIZE]!, done: 0, data: NOTHING, base: 0 }
    const before = this.#reads.length
    if (before === WAITING_MAX) return this.#refuse(unique)
    this.#reads.push(read)
    // Whoever waits already is first; the port knows about him.
    if (before > 0 && !this.#input) return this.#settleRead(read, words)
    this.#end.writable()
    if (this.#reads.includes(read)) this.#settleRead(read, words)
  }

  /** There is nothing to read now. */
  #settleRead(read: Waiting, words: Uint32Array): void {
    // A long read comes in pieces; one that found nothing after the first ends the whole, or it would block with data.
    const continued = words[wire.W_OFFSET] !== 0 || words[wire.W_OFFSET + 1] !== 0
    if (continued || !this.#hostOpen) this.#drop(this.#reads, read)
    else if (words[wire.W_FILE_FLAGS]! & wire.O_NONBLOCK) {
      this.#drop(this.#reads, read)
      this.#channel.reply(read.unique, wire.EAGAIN)
      return
    } else return
    this.#channel.reply(read.unique)
  }

  #write(unique: number, words: Uint32Array, bytes: Uint8Array): void {
    const len = words[wire.W_SIZE]!
    if (this.#writes.length === WAITING_MAX) return this.#refuse(unique)
    const data = bytes.subarray(wire.WRITE_DATA, wire.WRITE_DATA + len)
    const write: Waiting = { unique, len, done: 0, data, base: 0 }
    const nonBlocking = (words[wire.W_FILE_FLAGS]! & wire.O_NONBLOCK) !== 0
    const first = this.#writes.push(write) === 1
    if (first) this.#end.readable()
    if (write.done === len) return
    if (!nonBlocking) {
      write.data = data.slice(write.done)
      write.base = write.done
      return
    }
    this.#drop(this.#writes, write)
    if (write.done > 0) this.#channel.replyWords(unique, write.done, 0)
    else this.#channel.reply(unique, wire.EAGAIN)
  }

  #poll(unique: number, words: Uint32Array): void {
    const file = this.#opens.get(words[wire.W_FH]!)
    // The ring may hold what no interrupt has told us of yet.
    if (this.#reads.length === 0) this.#end.writable()
    if (file && words[wire.W_POLL_FLAGS]! & wire.FUSE_POLL_SCHEDULE_NOTIFY) {
      file.polling = true
      file.low = words[wire.W_POLL_HANDLE]!
      file.high = words[wire.W_POLL_HANDLE + 1]!
    }
    let events = this.#hostOpen ? 0 : wire.POLLHUP
    if (this.#input) events |= wire.POLLIN | wire.POLLRDNORM
    if (this.#reading) events |= wire.POLLOUT | wire.POLLWRNORM
    this.#channel.replyWords(unique, events & (words[wire.W_POLL_EVENTS]! | wire.POLLHUP | wire.POLLERR), 0)
  }

  /** A signal for a program that waits. A request that was answered meanwhile is not found. */
  #interrupt(victim: number): void {
    const read = this.#reads.find(({ unique }) => unique === victim)
    if (read) {
      this.#drop(this.#reads, read)
      this.#channel.reply(victim, wire.EINTR)
    }
    const write = this.#writes.find(({ unique }) => unique === victim)
    if (!write) return
    this.#drop(this.#writes, write)
    if (write.done > 0) this.#channel.replyWords(victim, write.done, 0)
    else this.#channel.reply(victim, wire.EINTR)
  }

  // --- helpers

  #refuse(unique: number): void {
    this.refused++
    this.#channel.reply(unique, wire.ENOMEM)
  }

  #drop(list: Waiting[], one: Waiting): void {
    const at = list.indexOf(one)
    if (at >= 0) list.splice(at, 1)
  }

  #wake(): void {
    for (const file of this.#opens.values()) {
      if (!file.polling) continue
      file.polling = false
      this.#channel.wake(file.low, file.high)
    }
  }

  #refuseAll(): void {
    for (const read of this.#reads.splice(0)) this.#channel.reply(read.unique, wire.ENODEV)
    for (const write of this.#writes.splice(0)) {
      if (write.done > 0) this.#channel.replyWords(write.unique, write.done, 0)
      else this.#channel.reply(write.unique, wire.ENODEV)
    }
  }

  /** The kernel ended the device: somebody wrote to its `abort`. */
  #lost(): void {
    this.#reads.length = this.#writes.length = 0
    this.#opens.clear()
    this.#end.warn(`${this.place} was aborted by the kernel`)
    this.#end.setConnected(false)
  }
}

const NOTHING = new Uint8Array(0)
