/**
 * The other end of a vfio-user socket, for tests: sends any bytes with any descriptors, reads what comes back.
 *
 * Builds every message by hand, on purpose without the server's own wire tables.
 */

import { closeFd } from '../../src/ffi/libc.ts'
import { Watch } from '../../src/ffi/poll.ts'
import { Receiver, sendWithFds } from '../../src/ffi/scm.ts'
import { connectUnix } from '../../src/ffi/unix-listen.ts'

const EAGAIN = 11

export interface FakeMessage {
  id: number
  command: number
  flags: number
  errno: number
  payload: Buffer
  /** Descriptors that came in the same read; nobody expects any. */
  fds: number[]
}

export class FakeVmm {
  readonly #fd: number
  readonly #watch: Watch
  readonly #buffer = new Uint8Array(new ArrayBuffer(1 << 20))
  readonly #receiver = new Receiver(this.#buffer)
  readonly #waiting: ((message: FakeMessage | undefined) => void)[] = []
  readonly #arrived: FakeMessage[] = []
  #rest: Buffer = Buffer.alloc(0)
  #open = true
  /** The server hung up. */
  gone = false
  nextId = 100
  /** Takes the server's own requests (DMA_READ); without it they come by `next` as all else. */
  onRequest: ((message: FakeMessage) => void) | undefined

  constructor(path: string) {
    this.#fd = connectUnix(path)
    this.#watch = new Watch(this.#fd, () => this.#receive())
    this.#watch.want(true, false)
  }

  /** Connects and says VERSION as QEMU does. */
  static async attach(path: string): Promise<FakeVmm> {
    const vmm = new FakeVmm(path)
    try {
      const reply = await vmm.version()
      if (reply.errno !== 0) throw new Error(`VERSION was refused with ${reply.errno}`)
      return vmm
    } catch (error) {
      vmm.close()
      throw error
    }
  }

  version(json = '{"capabilities":{"max_msg_fds":16}}\0'): Promise<FakeMessage> {
    return this.request(1, concat(u32(0), Buffer.from(json)))
  }

  /** Stops and starts reading, as a VMM that is stuck. */
  reading(on: boolean): void {
    this.#watch.want(on, false)
  }

  /** Sends raw bytes; returns how many the socket took. */
  trySend(bytes: Uint8Array, fds: readonly number[] = []): number {
    const sent = sendWithFds(this.#fd, bytes, fds)
    if (sent < 0 && sent !== -EAGAIN && !this.gone) throw new Error(`the server hung up: errno ${-sent}`)
    return sent < 0 ? 0 : sent
  }

  /** Sends raw bytes, however long it takes; `fds` with the first of them. */
  async send(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
    for (let at = 0; at < bytes.length && !this.gone;) {
      const sent = this.trySend(bytes.subarray(at), at === 0 ? fds : [])
      if (sent === 0) await turn()
      at += sent
    }
  }

  async request(command: number, payload: Uint8Array, fds: readonly number[] = [], flags = 0): Promise<FakeMessage> {
    const id = this.nextId++
    await this.send(message(id, command, payload, flags), fds)
    const reply = await this.next()
    if (!reply) throw new Error(`the server hung up at command ${command}`)
    if (reply.id !== id || reply.command !== command || (reply.flags & 0xf) !== 1)
      throw new Error(`a reply to something else: ${JSON.stringify(reply)}`)
    return reply
  }

  /** Only the errno of the reply. */
  async errno(command: number, payload: Uint8Array, fds: readonly number[] = []): Promise<number> {
    return (await this.request(command, payload, fds)).errno
  }

  /** The next message; undefined where the server hung up. */
  next(): Promise<FakeMessage | undefined> {
    const first = this.#arrived.shift()
    if (first || this.gone) return Promise.resolve(first)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  mapMemory(iova: number, size: number, fd: number | undefined, offset = 0, flags = 3): Promise<number> {
    const payload = concat(u32(32), u32(flags), u64(offset), u64(iova), u64(size))
    return this.errno(2, payload, fd === undefined ? [] : [fd])
  }

  unmapMemory(iova: number, size: number, flags = 0): Promise<number> {
    return this.errno(3, concat(u32(24), u32(flags), u64(iova), u64(size)))
  }

  setIrqs(flags: number, index: number, start: number, count: number, fds: number[] = [], data = ''): Promise<number> {
    const payload = concat(u32(20), u32(flags), u32(index), u32(start), u32(count), Buffer.from(data, 'latin1'))
    return this.errno(8, payload, fds)
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#watch.close()
    closeFd(this.#fd)
  }

  #receive(): void {
    for (;;) {
      const got = this.#receiver.receive(this.#fd, 0, this.#buffer.length)
      if (got === -EAGAIN) return
      if (got <= 0) {
        this.gone = true
        this.#watch.close()
        for (const resolve of this.#waiting.splice(0)) resolve(undefined)
        return
      }
      this.#rest = concat(this.#rest, this.#buffer.subarray(0, got))
      this.#cut(this.#receiver.fds)
    }
  }

  #cut(fds: number[]): void {
    while (this.#rest.length >= 16 && this.#rest.length >= this.#rest.readUInt32LE(4)) {
      const size = this.#rest.readUInt32LE(4)
      const found: FakeMessage = {
        id: this.#rest.readUInt16LE(0),
        command: this.#rest.readUInt16LE(2),
        flags: this.#rest.readUInt32LE(8),
        errno: this.#rest.readUInt32LE(12),
        payload: Buffer.from(this.#rest.subarray(16, size)),
        fds,
      }
      this.#rest = this.#rest.subarray(size)
      if (this.onRequest && (found.flags & 0xf) === 0) {
        this.onRequest(found)
        continue
      }
      const resolve = this.#waiting.shift()
      if (resolve) resolve(found)
      else this.#arrived.push(found)
    }
  }
}

export function message(
  id: number,
  command: number,
  payload: Uint8Array,
  flags = 0,
  size: number = 16 + payload.length,
): Buffer {
  const header = Buffer.alloc(16)
  header.writeUInt16LE(id, 0)
  header.writeUInt16LE(command, 2)
  header.writeUInt32LE(size, 4)
  header.writeUInt32LE(flags, 8)
  return concat(header, payload)
}

/** Payload of REGION_READ, or of REGION_WRITE where there is data. */
export function access(
  region: number,
  offset: number | bigint,
  count: number,
  data: Uint8Array = Buffer.alloc(0),
): Buffer {
  return concat(u64(offset), u32(region), u32(count), data)
}

export function concat(...parts: Uint8Array[]): Buffer {
  return Buffer.concat(parts)
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value >>> 0)
  return bytes
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** Lets everything that is due happen once: all that arrived until now is read. */
export async function turn(): Promise<void> {
  // The first may fire before the loop polls.
  for (let i = 0; i < 2; i++) await new Promise((resolve) => setImmediate(resolve))
}
