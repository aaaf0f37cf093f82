/**
 * A transfer that goes on while things are done to its ports: numbered lines from one host peer through the guest to
 * another. What is missing is counted; a line that comes twice, out of order or damaged in the middle is a failure.
 */
import type { Socket } from 'node:net'
import { until } from '../lab/wait.ts'

const LINE = 16
/** A tick of the sender, and lines it has; about 100 KB/s, which a guest under TCG keeps up with. */
const TICK_MS = 5
const LINES = 32
const WAIT_MS = 60_000
/** Lines that must arrive after an interruption. */
const GOES_ON = 500

export class NumberedTransfer {
  #from: Socket | undefined
  #next = 0
  #seen = 0
  #lost = 0
  #cut = 0
  #held = ''
  #wrong: string | undefined
  readonly #timer: NodeJS.Timeout

  constructor(from: Socket, to: Socket) {
    this.sendBy(from)
    this.receiveBy(to)
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
  }

  /** Lines are sent there from now on; none while there is nobody. */
  sendBy(socket: Socket | undefined): void {
    this.#from = socket
  }

  /** Lines come from there too from now on. A line that was cut with its port is lost. */
  receiveBy(socket: Socket): void {
    if (this.#held !== '') this.#cut++
    this.#held = ''
    socket.on('data', (chunk: Buffer) => this.#take(chunk.toString('latin1')))
    socket.resume()
  }

  /** Until the transfer is seen to go on; gives the bytes lost since the last time. */
  async goesOn(): Promise<number> {
    const start = this.#next
    const through = (): boolean => this.#wrong !== undefined || this.#seen >= start + GOES_ON
    await until(through, 'the transfer goes on', WAIT_MS).catch((error: Error) => {
      throw new Error(`${error.message}: ${this.#seen} of ${this.#next} lines came`)
    })
    if (this.#wrong !== undefined) throw new Error(this.#wrong)
    const lost = this.#lost * LINE
    this.#lost = 0
    return lost
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #tick(): void {
    const socket = this.#from
    if (!socket || socket.destroyed || socket.writableLength > 0) return
    let text = ''
    for (let i = 0; i < LINES; i++) text += `${String(this.#next++).padStart(LINE - 1, '0')}\n`
    socket.write(text)
  }

  #take(text: string): void {
    this.#held += text
    let at = 0
    for (let end = this.#held.indexOf('\n'); end !== -1; end = this.#held.indexOf('\n', at)) {
      this.#line(this.#held.slice(at, end))
      at = end + 1
    }
    this.#held = this.#held.slice(at)
  }

  #line(line: string): void {
    // Two lines that were cut by a loss make one that has the end of the second.
    const whole = /^\d{15}$/.test(line)
    if (!whole) {
      this.#cut++
      if (!/^\d{0,14}$|^\d{16,30}$/.test(line))
        this.#wrong ??= `bytes that nobody sent: ${JSON.stringify(line.slice(0, 80))}`
      return
    }
    const number = Number(line)
    if (number < this.#seen) this.#wrong ??= `line ${number} comes after line ${this.#seen - 1}`
    this.#lost += number - this.#seen
    this.#seen = number + 1
  }

  /** Lines of which a part came. */
  get cut(): number {
    return this.#cut
  }
}
