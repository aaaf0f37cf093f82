/**
 * The kernel's end of a CUSE device, for tests: a socket that keeps messages apart stands for /dev/cuse. With it a port
 * with memory of real addresses, as the driver's has.
 */
import type { CuseDevice } from '../../src/chardev/cuse/device.ts'
import type { CuseDoor } from '../../src/chardev/cuse/channel.ts'
import type { ChardevEnd } from '../../src/chardev/chardev.ts'
import { fixedBuffer, type FixedBuffer } from '../../src/ffi/cuse.ts'
import { check, closeFd, declare } from '../../src/ffi/libc.ts'
import { Iovec } from '../../src/mem/iovec.ts'

const socketpair = declare('int socketpair(int domain, int type, int protocol, void *fds)')
const setsockopt = declare('int setsockopt(int fd, int level, int name, void *value, unsigned int len)')
const send = declare('int64_t send(int fd, void *data, size_t len, int flags)')
const recv = declare('int64_t recv(int fd, void *data, size_t len, int flags)')
const MSG_DONTWAIT = 0x40

export interface Reply {
  unique: number
  /** 0, a negative error, or for a notification its positive code. */
  error: number
  body: Buffer
}

export class Kernel implements CuseDoor {
  readonly #ours: number
  readonly #theirs: number
  #unique = 0
  #open = true

  constructor() {
    const fds = new Int32Array(new ArrayBuffer(128))
    // AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK
    check(socketpair(1, 5 | 0o4000, 0, new Uint8Array(fds.buffer)), 'socketpair', 'test')
    ;[this.#ours, this.#theirs] = [fds[0]!, fds[1]!]
    const size = new Uint8Array(new Int32Array([1 << 20]).buffer)
    for (const fd of [this.#ours, this.#theirs]) setsockopt(fd, 1, 7, size, 4)
    this.request(4096, [7, 38, 0, 1])
  }

  open(): number {
    return this.#theirs
  }
  verify(): void {}
  close(): void {
    if (this.#open) closeFd(this.#ours)
    this.#open = false
  }

  /** Sends a request: its words behind the header, and bytes; returns its number. */
  request(opcode: number, body: readonly number[], data: Uint8Array = new Uint8Array(0)): number {
    const unique = (this.#unique += 2)
    const len = 40 + body.length * 4 + data.length
    const message = Buffer.alloc(Math.max(128, len))
    message.writeUInt32LE(len, 0)
    message.writeUInt32LE(opcode, 4)
    message.writeUInt32LE(unique, 8)
    for (const [i, word] of body.entries()) message.writeUInt32LE(word, 40 + i * 4)
    message.set(data, 40 + body.length * 4)
    check(send(this.#ours, message, len, MSG_DONTWAIT), 'send', 'test')
    return unique
  }

  read(size: number, { flags = 0, offset = 0 }: { flags?: number; offset?: number } = {}): number {
    return this.request(15, [1, 0, offset, 0, size, 0, 0, 0, flags, 0])
  }
  write(data: Uint8Array, flags = 0): number {
    return this.request(16, [1, 0, 0, 0, data.length, 0, 0, 0, flags, 0], data)
  }

  /** What the device has said since. */
  replies(): Reply[] {
    const all: Reply[] = []
    for (;;) {
      const message = Buffer.alloc(1 << 18)
      const len = recv(this.#ours, message, message.length, MSG_DONTWAIT)
      if (len <= 0) return all
      if (message.readUInt32LE(0) !== len) throw new Error(`a reply of ${len} bytes says ${message.readUInt32LE(0)}`)
      all.push({ unique: message.readUInt32LE(8), error: message.readInt32LE(4), body: message.subarray(16, len) })
    }
  }
}

const PIECE = 32 << 10

/** Takes what programs write as far as there is room, and offers what the test has put in. */
export class FakePort implements ChardevEnd {
  device: CuseDevice | undefined
  readonly events: string[] = []
  received: Buffer = Buffer.alloc(0)
  room: number = 1 << 20
  /** Calls of readv that were given memory and used it. */
  fills = 0
  #input = Buffer.alloc(0)
  readonly #pieces: FixedBuffer[] = Array.from({ length: 8 }, () => fixedBuffer(PIECE))

  give(text: string | Buffer): void {
    this.#input = Buffer.concat([this.#input, Buffer.from(text)])
    this.writable()
  }
  makeRoom(bytes: number): void {
    this.room = bytes
    this.readable()
  }

  readable(): void {
    const list = new Iovec()
    while (this.room > 0) {
      list.clear()
      for (let i = 0, left = this.room; left > 0 && i < this.#pieces.length; i++, left -= PIECE)
        list.push(this.#pieces[i]!.bytes, 0, Math.min(PIECE, left), this.#pieces[i]!.address)
      const bytes = this.device?.readv(list) ?? 0
      if (bytes <= 0) return this.device?.setReading(true)
      this.fills++
      this.room -= bytes
      const parts = this.#pieces.map((piece) => Buffer.from(piece.bytes.subarray(0, PIECE)))
      this.received = Buffer.concat([this.received, Buffer.concat(parts).subarray(0, bytes)])
    }
    this.device?.setReading(false)
  }

  writable(): void {
    if (this.#input.length === 0) return
    const memory = fixedBuffer(this.#input.length)
    memory.bytes.set(this.#input)
    const list = new Iovec()
    list.push(memory.bytes, 0, this.#input.length, memory.address)
    this.#input = this.#input.subarray(this.device?.writev(list) ?? 0)
  }

  setConnected(connected: boolean): void {
    this.events.push(connected ? 'open' : 'closed')
    this.readable()
  }
  resized(): void {}
  warn(message: string): void {
    this.events.push(message)
  }
}
