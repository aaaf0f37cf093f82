/** What the chardev tests share: an end that records, lists over plain and native memory, waiting, counting fds. */

import { readdirSync, readlinkSync } from 'node:fs'
import { Iovec } from '../../src/mem/iovec.ts'
import { GONE, type Chardev, type ChardevEnd } from '../../src/chardev/chardev.ts'

export function listOf(...parts: Uint8Array[]): Iovec {
  const list = new Iovec()
  for (const part of parts) list.push(part, 0, part.length, 0)
  return list
}

export const textList = (text: string): Iovec => listOf(Buffer.from(text))

export async function until(condition: () => boolean, what: string, ms = 30_000): Promise<void> {
  const deadline = Date.now() + ms
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out: ${what}`)
    await sleep(2)
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A port stand-in: reads what comes while `reading`, keeps what is to be written, records every call. */
export class FakePort implements ChardevEnd {
  chardev: Chardev | undefined
  events: string[] = []
  warnings: string[] = []
  input: Buffer[] = []
  inputLen = 0
  readables = 0
  writables = 0
  reading = false
  /** Output that the chardev has not taken yet. */
  output: Buffer = Buffer.alloc(0)
  lastRead = 0
  readonly #buffer = Buffer.alloc(65536)

  open(chardev: Chardev): void {
    this.chardev = chardev
  }
  read(on: boolean): void {
    this.reading = on
    this.chardev!.setReading(on)
  }
  get received(): string {
    return Buffer.concat(this.input).toString('latin1')
  }
  write(data: string): void {
    this.output = Buffer.concat([this.output, Buffer.from(data, 'latin1')])
    this.flush()
  }
  flush(): void {
    while (this.output.length > 0) {
      const done = this.chardev!.writev(listOf(this.output))
      if (done <= 0) return
      this.output = this.output.subarray(done)
    }
  }
  setConnected(connected: boolean): void {
    this.events.push(connected ? 'connected' : 'gone')
    if (connected) this.flush()
  }
  readable(): void {
    this.readables++
    while (this.reading) {
      const done = this.chardev!.readv(listOf(this.#buffer))
      this.lastRead = done
      if (done === GONE || done === 0) return
      this.input.push(Buffer.from(this.#buffer.subarray(0, done)))
      this.inputLen += done
    }
  }
  writable(): void {
    this.writables++
    this.flush()
  }
  resized(cols: number, rows: number): void {
    this.events.push(`${cols}x${rows}`)
  }
  warn(message: string): void {
    this.warnings.push(message)
  }
}

/** Open descriptors of this process that are sockets, pipes, ptys, files in /tmp: what a leak would add to. */
export function openFds(): string[] {
  const result: string[] = []
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      result.push(`${name} ${readlinkSync(`/proc/self/fd/${name}`)}`)
    } catch {
      // the fd of this listing itself
    }
  }
  return result.filter((line) => !line.includes('/proc/'))
}

/** CPU time of this process during `ms` of waiting, in milliseconds. */
export async function cpuDuring(ms: number): Promise<number> {
  const before = process.cpuUsage()
  await sleep(ms)
  const used = process.cpuUsage(before)
  return (used.user + used.system) / 1000
}
