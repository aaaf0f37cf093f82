/**
 * A transfer that goes on while things are done to its ports: numbered lines from one host peer through the guest to
 * another. What is missing is counted; a line that comes twice, out of order or damaged in the middle is a failure.
 */
import type { Socket } from 'node:net'
import { until } from '../lab/wait.ts'

const LINE = 16
/** A tick of the sender, and lines it has; some 25 KB/s, so that a guest under TCG keeps up and little is under way. */
const TICK_MS = 5
const LINES = 8
const WAIT_MS = 60_000
/** Lines after an interruption of which each must arrive. */
const GOES_ON = 400

export class NumberedTransfer {
  #from: Socket | undefined
  #next = 0
  #seen = 0
  #lost = 0
  /** From here on, for GOES_ON lines, nothing may be lost. */
  #mark = Infinity
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
    this.#held = ''
    socket.on('data', (chunk: Buffer) => this.#take(chunk.toString('latin1')))
    socket.resume()
  }

  /**
   * Everything is in its place again: until the transfer is seen to go on from here, without a loss. Gives the bytes
   * that were lost before.
   */
  async goesOn(): Promise<number> {
    const mark = (this.#mark = this.#next)
    const through = (): boolean => this.#wrong !== undefined || this.#seen >= mark + GOES_ON
    await until(through, 'the transfer goes on', WAIT_MS).catch((error: Error) => {
      throw new Error(`${error.message}: ${this.#seen} of ${this.#next} lines came`)
    })
    if (this.#wrong !== undefined) throw new Error(this.#wrong)
    this.#mark = Infinity
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
    if (!/^\d{15}$/.test(line)) {
      // A loss leaves parts of lines, of which two may look like one.
      if (this.#seen >= this.#mark || !/^\d{0,30}$/.test(line))
        this.#wrong ??= `after line ${this.#seen - 1} comes ${JSON.stringify(line.slice(0, 80))}`
      return
    }
    const number = Number(line)
    if (number < this.#seen) this.#wrong ??= `line ${number} comes after line ${this.#seen - 1}`
    if (number > this.#seen && this.#seen >= this.#mark)
      this.#wrong ??= `lines ${this.#seen} to ${number - 1} are lost, which were sent when all was in its place again`
    this.#lost += number - this.#seen
    this.#seen = number + 1
  }
}
