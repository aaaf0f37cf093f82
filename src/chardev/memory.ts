/**
 * A far end in the same program: two bounded byte queues, no system call. The browser's back end and that of loopback
 * tests; imports nothing of Node. The other side is the `host` half of the same object.
 */

import type { Iovec } from '../mem/iovec.ts'
import { GONE, WOULD_BLOCK, type Chardev, type ChardevEnd } from './chardev.ts'

/** The far side's hands on it. */
export interface MemoryHost {
  /** Comes or goes, as a socket peer does. */
  setConnected(connected: boolean): void
  /** Sends to the guest; returns the bytes taken, fewer than given when the queue is full. */
  send(bytes: Uint8Array): number
  /** Takes what the guest has sent, at most `max` bytes. */
  receive(max?: number): Uint8Array
  /** While paused nothing more is taken from the guest. */
  pause(on: boolean): void
  /** Called when the guest has sent something, and when there is room again for `send`. */
  onReadable: (() => void) | undefined
  onWritable: (() => void) | undefined
}

export interface MemoryChardev extends Chardev {
  readonly host: MemoryHost
}

/** A ring of bytes. */
class ByteQueue {
  readonly #bytes: Uint8Array
  #start = 0
  len = 0

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity)
  }

  get room(): number {
    return this.#bytes.length - this.len
  }

  /** Appends as much as fits; returns how much that was. */
  put(source: Uint8Array): number {
    const size = this.#bytes.length
    const total = Math.min(source.length, this.room)
    const at = (this.#start + this.len) % size
    const first = Math.min(total, size - at)
    this.#bytes.set(source.subarray(0, first), at)
    this.#bytes.set(source.subarray(first, total), 0)
    this.len += total
    return total
  }

  /** Moves bytes out into `target`, as many as there are or fit. */
  take(target: Uint8Array): number {
    const size = this.#bytes.length
    const total = Math.min(target.length, this.len)
    const first = Math.min(total, size - this.#start)
    target.set(this.#bytes.subarray(this.#start, this.#start + first))
    target.set(this.#bytes.subarray(0, total - first), first)
    this.#start = (this.#start + total) % size
    this.len -= total
    return total
  }
}

/** Makes one; connected from the start unless told otherwise. Capacities are bytes in each direction. */
export function openMemory(end: ChardevEnd, capacity: number = 65536, connected: boolean = true): MemoryChardev {
  const toHost = new ByteQueue(capacity)
  const toGuest = new ByteQueue(capacity)
  let present = connected
  let closed = false
  let reading = false
  let paused = false
  let blocked = false
  let starved = false
  let readableDue = false

  /** The port is told from the event loop, never from inside a call of its own. */
  const later = (fn: () => void): void =>
    queueMicrotask(() => {
      if (!closed) fn()
    })
  const tellReadable = (): void => {
    if (!reading || toGuest.len === 0 || readableDue) return
    readableDue = true
    later(() => {
      readableDue = false
      if (reading && toGuest.len > 0) end.readable()
    })
  }
  const tellWritable = (): void => {
    if (!blocked || paused || toHost.room === 0) return
    blocked = false
    later(() => end.writable())
  }

  const host: MemoryHost = {
    onReadable: undefined,
    onWritable: undefined,
    setConnected(on) {
      if (closed || present === on) return
      present = on
      later(() => end.setConnected(on))
    },
    send(bytes) {
      if (!present || closed) return 0
      const done = toGuest.put(bytes)
      if (done < bytes.length) starved = true
      tellReadable()
      return done
    },
    receive(max = Infinity) {
      const result = new Uint8Array(Math.min(max, toHost.len))
      toHost.take(result)
      tellWritable()
      return result
    },
    pause(on) {
      paused = on
      tellWritable()
    },
  }
  const roomAgain = (): void => {
    if (!starved) return
    starved = false
    later(() => host.onWritable?.())
  }

  return {
    label: 'memory',
    place: undefined,
    host,
    get connected() {
      return present && !closed
    },
    writev(list: Iovec) {
      if (!present || closed) return GONE
      let sum = 0
      const count = paused ? 0 : list.count
      for (let i = 0; i < count; i++) {
        const offset = list.offset[i]!
        const len = list.len[i]!
        const done = toHost.put(list.bytes[i]!.subarray(offset, offset + len))
        sum += done
        if (done < len) break
      }
      if (sum < list.total) blocked = true
      if (sum > 0) later(() => host.onReadable?.())
      return sum === 0 ? WOULD_BLOCK : sum
    },
    readv(list: Iovec) {
      let sum = 0
      for (let i = 0; i < list.count && toGuest.len > 0; i++) {
        const offset = list.offset[i]!
        sum += toGuest.take(list.bytes[i]!.subarray(offset, offset + list.len[i]!))
      }
      if (sum > 0) roomAgain()
      else if (!present || closed) return GONE
      return sum
    },
    setReading(on: boolean) {
      reading = on && !closed
      tellReadable()
    },
    discardInput() {
      const len = toGuest.take(new Uint8Array(toGuest.len))
      if (len > 0) roomAgain()
      return len
    },
    disconnect() {
      host.setConnected(false)
    },
    close() {
      closed = true
      present = false
      reading = false
    },
  }
}
