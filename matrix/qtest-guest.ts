/** No guest at all: our driver half in this process, on the device of a QEMU under qtest. */
import { createHash } from 'node:crypto'
import type { BareMachine } from '../lab/bare-machine.ts'
import { Pattern } from '../lab/pattern.ts'
import type { QtestDriver } from '../src/driver/attach/qtest/machine.ts'
import { ConsoleDriver } from '../src/driver/console.ts'
import type { DriverPort } from '../src/driver/port.ts'
import { GuestPort } from '../src/guest/port.ts'
import type { GuestPortStream } from '../src/guest/port-stream.ts'
import type { GuestSide } from './sides.ts'

export class QtestGuest implements GuestSide {
  readonly log: string[] = []
  readonly #machine: BareMachine
  readonly #slot: number
  readonly #ports = new Map<DriverPort, GuestPort>()
  #attached!: QtestDriver
  #driver!: ConsoleDriver

  constructor(machine: BareMachine, slot: number) {
    this.#machine = machine
    this.#slot = slot
  }

  start(): void {
    const note = (message: string): void => void this.log.push(message)
    this.#attached = this.#machine.qtest.attach({ slot: this.#slot })
    this.#driver = new ConsoleDriver(this.#attached.transport, this.#attached.pool, {
      log: { error: note, warn: note, info: () => {}, debug: () => {} },
      defer: setImmediate,
      onPort: ({ event, port }) => {
        if (event === 'added') this.#ports.set(port, new GuestPort(port))
        const known = this.#ports.get(port)
        if (event === 'removed' || event === 'broken' || event === 'stopped') {
          this.#ports.delete(port)
          process.nextTick(() => known?.setGone(event))
        } else process.nextTick(() => known?.handle(event))
      },
    })
    this.#driver.start()
  }

  names(): Promise<string[]> {
    const names = [...this.#ports.values()].map(({ name }) => name ?? '')
    return Promise.resolve(names.filter(Boolean).toSorted())
  }

  id(name: string): Promise<number> {
    return Promise.resolve(this.#port(name).id)
  }

  async send(name: string, total: number, size: number): Promise<string> {
    const bytes = new Pattern().take(total)
    const stream = this.#open(name)
    for (let at = 0; at < total; at += size)
      await new Promise<void>((resolve, reject) =>
        stream.write(bytes.subarray(at, at + size), (error) => (error ? reject(error) : resolve())),
      )
    await stream.close()
    return createHash('sha256').update(bytes).digest('hex')
  }

  receive(name: string, total: number): Promise<() => Promise<string>> {
    const stream = this.#open(name)
    const hash = createHash('sha256')
    let got = 0
    const all = new Promise<void>((resolve, reject) => {
      stream.once('close', () => reject(new Error(`closed after ${got} bytes`)))
      stream.on('data', (chunk: Buffer) => {
        hash.update(chunk)
        got += chunk.length
        if (got >= total) resolve()
      })
    })
    all.catch(() => {})
    return Promise.resolve(async () => {
      await all
      await stream.close()
      return got === total ? hash.digest('hex') : `${got} bytes`
    })
  }

  hold(name: string): Promise<() => Promise<void>> {
    const stream = this.#open(name)
    return Promise.resolve(() => stream.close())
  }

  hostOpen(name: string): Promise<boolean> {
    return Promise.resolve(this.#port(name).hostOpen)
  }

  restartDriver(): Promise<void> {
    this.#driver.stop()
    this.#attached.detach()
    this.start()
    return Promise.resolve()
  }

  async resetMachine(): Promise<void> {
    this.#attached.detach()
    const reset = this.#machine.client.nextEvent('RESET')
    await this.#machine.qmp('system_reset')
    await reset
    await this.#machine.qtest.ready()
    for (const port of this.#ports.values()) port.setGone('stopped')
    this.#ports.clear()
    this.start()
  }

  #open(name: string): GuestPortStream {
    const stream = this.#port(name).open()
    stream.on('error', () => {})
    return stream
  }

  #port(name: string): GuestPort {
    const found = [...this.#ports.values()].find((port) => port.name === name)
    if (!found) throw new Error(`the driver has no port ${name}`)
    return found
  }
}
