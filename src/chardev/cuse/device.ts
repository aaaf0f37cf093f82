/**
 * A port as a character device of the guest: programs open, read, write and poll /dev/vmchN as if the kernel drove it.
 *
 * Nothing is queued here: a read is answered straight from the ring, a write goes straight into it, by one system call
 * from the program's memory to the device's, and what does not fit stays with the program that waits. It behaves as Linux's own ports do, with these differences: a blocking write
 * is taken whole (Linux takes 32 KiB at a time), a host that is away is POLLHUP without POLLIN (no busy loop), and
 * there is no SIGIO (CUSE has none).
 */

import type { Iovec } from '../../mem/iovec.ts'
import type { Chardev, ChardevEnd } from '../chardev.ts'
import type { BusyLoop } from './busy-loop.ts'
import { CuseChannel, LOST, NOTHING, REQUEST, uniqueAt, words, type CuseDoor, type Found } from './channel.ts'
import { OpenFiles } from './open-files.ts'
import * as wire from './wire.ts'

/** Requests answered before other events have their turn. */
const TURN = 64
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
  readonly base: number
}

/** The next request is looked for where there is memory for it: `serve` asks the port, the port asks `readv`. */
const WANTED = 2
/** It was a write, and the port has its bytes. */
const WRITTEN = 3
type Next = Found | typeof WANTED | typeof WRITTEN

export class CuseDevice implements Chardev {
  readonly label: string
  readonly place: string
  /** Opens refused because the device was in use, and requests refused because too many were waiting. */
  refused = 0
  readonly #end: ChardevEnd
  readonly #share: boolean
  readonly #channel: CuseChannel
  readonly #busy: BusyLoop | undefined
  readonly #files = new OpenFiles()
  readonly #reads: Waiting[] = []
  readonly #writes: Waiting[] = []
  #reading = false
  #next: Next = NOTHING
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
    this.#channel = new CuseChannel(options, () => this.#ready(), options.door)
  }

  get fd(): number {
    return this.#channel.fd
  }

  get connected(): boolean {
    return this.#files.count > 0
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
    let some = false
    for (let i = 0; i < most && this.#channel.open && this.#serveOne(); i++) some = true
    return some
  }

  /** The event loop has seen requests. */
  #ready(): void {
    if (!this.serve(TURN) || !this.#channel.open) return
    this.#busy?.touch(this)
    this.#busy?.run()
  }

  #serveOne(): boolean {
    this.#next = WANTED
    if (this.#reading && this.#writes.length === 0) this.#end.readable()
    // The port has broken meanwhile.
    if (!this.#channel.open) return true
    // `readv` may have set it.
    const next = this.#next as Next
    const found = next === WANTED ? this.#channel.receive(undefined) : next
    this.#next = NOTHING
    if (found === NOTHING) return false
    if (found === LOST) this.#lost()
    else if (found === WRITTEN) this.#settleWrite()
    else this.#handle()
    return true
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
    if (write) return this.#take(write, list)
    if (this.#next !== WANTED) return 0
    this.#next = this.#channel.receive(list)
    if (this.#next !== REQUEST || words[wire.W_OPCODE] !== wire.FUSE_WRITE) return 0
    this.#next = WRITTEN
    const unique = uniqueAt(wire.W_UNIQUE)
    const { len, lent } = this.#channel
    // The program goes on while the port sends.
    if (lent === len) this.#channel.replyWords(unique, len, 0)
    else {
      const rest: Waiting = { unique, len, done: lent, data: this.#channel.more, base: lent }
      this.#writes.push(rest)
      if (lent === 0) return this.#take(rest, list)
    }
    return lent
  }

  #take(write: Waiting, list: Iovec): number {
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
    // Who has asked and was not heard yet is told ENODEV with the others, rather than that the connection broke.
    this.serve(TURN)
    if (!this.#channel.open) return
    this.#hostOpen = false
    this.#refuseAll()
    this.#channel.close()
    this.#busy?.forget(this)
  }

  // --- requests

  #handle(): void {
    const opcode = words[wire.W_OPCODE]!
    const unique = uniqueAt(wire.W_UNIQUE)
    if (opcode === wire.FUSE_READ) this.#read(unique)
    else if (opcode === wire.FUSE_WRITE) this.#write(unique)
    else if (opcode === wire.FUSE_POLL) this.#poll(unique)
    else if (opcode === wire.FUSE_OPEN) this.#openFile(unique)
    else if (opcode === wire.FUSE_RELEASE) this.#release(unique)
    else if (opcode === wire.FUSE_INTERRUPT) this.#interrupt(uniqueAt(wire.W_VICTIM))
    else this.#channel.reply(unique, opcode === wire.FUSE_IOCTL ? wire.ENOTTY : wire.ENOSYS)
  }

  #openFile(unique: number): void {
    const first = this.#files.count === 0
    if (!first && !this.#share) {
      this.refused++
      this.#channel.reply(unique, wire.EBUSY)
      return
    }
    const file = this.#files.add()
    if (first) this.#end.setConnected(true)
    if (!this.#channel.replyWords(unique, file, 0, 0, 0)) this.#forget(file)
  }

  /** The program that closes waits for the answer: the next one cannot be early. */
  #release(unique: number): void {
    this.#forget(words[wire.W_FH]!)
    this.#channel.reply(unique)
  }

  #forget(file: number): void {
    if (this.#files.remove(file) && this.#files.count === 0) {
      this.#input = false
      this.#end.setConnected(false)
    }
  }

  #read(unique: number): void {
    const len = Math.min(words[wire.W_SIZE]!, wire.REQUEST_MAX)
    const read: Waiting = { unique, len, done: 0, data: NO_BYTES, base: 0 }
    const continued = words[wire.W_OFFSET] !== 0 || words[wire.W_OFFSET + 1] !== 0
    const nonBlocking = (words[wire.W_FILE_FLAGS]! & wire.O_NONBLOCK) !== 0
    const before = this.#reads.length
    if (before === WAITING_MAX) return this.#refuse(unique)
    this.#reads.push(read)
    // Whoever waits already is first; the port knows about him.
    if (before === 0 || this.#input) this.#end.writable()
    if (!this.#reads.includes(read)) return
    // There is nothing to read now. A long read comes in pieces; one that found nothing after the first ends the whole,
    // or it would block with data.
    if (continued || !this.#hostOpen || nonBlocking) {
      this.#drop(this.#reads, read)
      this.#channel.reply(unique, continued || !this.#hostOpen ? 0 : wire.EAGAIN)
    }
  }

  /** A write for which the port had lent no memory. */
  #write(unique: number): void {
    const { len } = this.#channel
    if (this.#writes.length === WAITING_MAX) return this.#refuse(unique)
    if (this.#writes.push({ unique, len, done: 0, data: this.#channel.more, base: 0 }) === 1) this.#end.readable()
    this.#settleWrite()
  }

  /** The newest write: what the port has not taken of it has to wait, or is not to wait. */
  #settleWrite(): void {
    const unique = uniqueAt(wire.W_UNIQUE)
    const at = this.#writes.length - 1
    const write = this.#writes[at]
    if (write?.unique !== unique) return
    if (words[wire.W_FILE_FLAGS]! & wire.O_NONBLOCK) {
      this.#writes.pop()
      if (write.done > 0) this.#channel.replyWords(unique, write.done, 0)
      else this.#channel.reply(unique, wire.EAGAIN)
    } else this.#writes[at] = { ...write, data: write.data.slice(write.done - write.base), base: write.done }
  }

  #poll(unique: number): void {
    // The ring may hold what no interrupt has told us of yet.
    if (this.#reads.length === 0) this.#end.writable()
    if (words[wire.W_POLL_FLAGS]! & wire.FUSE_POLL_SCHEDULE_NOTIFY)
      this.#files.waitsFor(words[wire.W_FH]!, words[wire.W_POLL_HANDLE]!, words[wire.W_POLL_HANDLE + 1]!)
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
    this.#files.wake((low, high) => this.#channel.wake(low, high))
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
    this.#channel.close()
    this.#busy?.forget(this)
    this.#reads.length = this.#writes.length = 0
    this.#files.clear()
    this.#end.warn(`${this.place} was aborted by the kernel`)
    this.#end.setConnected(false)
  }
}

const NO_BYTES = new Uint8Array(0)
