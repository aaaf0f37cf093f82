/**
 * Runs in the guest: a program that drives a device itself, without the kernel and without CUSE, and does what the C
 * programs do with a character device. Orders come as lines of a FIFO (`source BYTES SIZE`, `sink BYTES SIZE`), each is
 * answered with a line of JSON in another one. Started by guest-rig.ts.
 */
import { createReadStream, constants, openSync, writeFile } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Chardev, ChardevEnd } from '../src/chardev/chardev.ts'
import { attachUio } from '../src/driver/attach/uio/attach.ts'
import { pciFunction } from '../src/driver/attach/pci-sysfs.ts'
import { ConsoleDriver } from '../src/driver/console.ts'
import type { Iovec } from '../src/mem/iovec.ts'

/** Memory of its own, as any program has: what it sends is copied from there, what it gets is copied to there. */
class Program implements Chardev {
  readonly label = 'program'
  readonly connected = true
  readonly place = undefined
  readonly #end: ChardevEnd
  #memory = new Uint8Array(0)
  #toSend = 0
  #toGet = 0
  #first = 0
  #done: ((ms: number) => void) | undefined

  constructor(end: ChardevEnd) {
    this.#end = end
  }

  send(bytes: number, size: number): Promise<number> {
    this.#memory = new Uint8Array(size).fill(1)
    this.#toSend = bytes
    return this.#started(() => this.#end.readable())
  }

  receive(bytes: number, size: number): Promise<number> {
    this.#memory = new Uint8Array(size)
    this.#toGet = bytes
    return this.#started(() => this.#pull())
  }

  /** Reads as long as there is something, a memory full at a time. */
  #pull(): void {
    for (let before = 0; this.#toGet > 0 && this.#toGet !== before;) {
      before = this.#toGet
      this.#end.writable()
    }
  }

  #started(start: () => void): Promise<number> {
    this.#first = 0
    return new Promise((resolve) => {
      this.#done = resolve
      start()
    })
  }

  #moved(left: number): void {
    if (left > 0) return
    this.#done?.(performance.now() - this.#first)
    this.#done = undefined
  }

  writev(list: Iovec): number {
    if (this.#toGet <= 0) return 0
    this.#first ||= performance.now()
    const got = list.copyTo(this.#memory)
    this.#toGet -= got
    this.#moved(this.#toGet)
    if (got < list.total) queueMicrotask(() => this.#pull())
    return got
  }

  readv(list: Iovec): number {
    if (this.#toSend <= 0) return 0
    this.#first ||= performance.now()
    const sent = list.copyFrom(this.#memory.subarray(0, this.#toSend))
    this.#toSend -= sent
    this.#moved(this.#toSend)
    return sent
  }

  setReading(on: boolean): void {
    if (on && this.#toSend > 0) setImmediate(() => this.#end.readable())
  }

  discardInput(): number {
    return 0
  }

  disconnect(): void {}

  close(): void {}
}

const [device = '', orders = '', answers = ''] = process.argv.slice(2)
const { transport, pool } = attachUio(pciFunction(device))
const driver = new ConsoleDriver(transport, pool, { defer: setImmediate })
driver.start()
const wait = setInterval(() => {
  const port = driver.ports.find(({ name }) => name !== undefined)
  if (!port) return
  clearInterval(wait)
  const program = port.attach((end) => new Program(end)) as Program
  // Open for writing too: never at an end.
  const input = createReadStream('', { fd: openSync(orders, constants.O_RDWR) })
  createInterface({ input }).on('line', (line) => void obey(program, line.split(' ')))
  process.stdout.write('ready\n')
}, 10)

async function obey(program: Program, [order, bytes = '', size = '']: string[]): Promise<void> {
  const ms = await (order === 'source' ? program.send(+bytes, +size) : program.receive(+bytes, +size))
  writeFile(answers, `${JSON.stringify({ ns: ms * 1e6 })}\n`, () => {})
}
