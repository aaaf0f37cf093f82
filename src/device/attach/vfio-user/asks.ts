/**
 * The few things that we ask of the VMM: reads of guest memory through the VMM itself (DMA_READ).
 *
 * Called by the session. The VMM answers from its main loop, long after the reply to what it asked last: never hold a
 * reply back for one of these.
 */

import { COMMAND, DMA_ACCESS, FLAG_ERROR, HEADER_SIZE, setHeader, setU64, type Message } from './wire.ts'

/** Questions under way at once. */
const MAX_PENDING = 16
/** Longest read that is worth asking for. */
const READ_MAX = 4096
const TIMEOUT_MS = 10_000

/** Both places where the data of a DMA_READ reply may be: QEMU before 10.2 put it 4 bytes earlier. */
export interface DmaAnswer {
  readonly data: Uint8Array
  readonly earlier: Uint8Array
}

interface Question {
  readonly len: number
  readonly answer: (answer: DmaAnswer | undefined) => void
  readonly timer: NodeJS.Timeout
}

export class Asks {
  readonly #send: (data: Uint8Array, len: number) => boolean
  readonly #pending = new Map<number, Question>()
  readonly #bytes = new Uint8Array(new ArrayBuffer(HEADER_SIZE + DMA_ACCESS.size))
  readonly #view = new DataView(this.#bytes.buffer)
  #nextId = 1
  #limit = READ_MAX

  constructor(send: (data: Uint8Array, len: number) => boolean) {
    this.#send = send
  }

  /** Longest read that the VMM and we agree on. */
  get limit(): number {
    return this.#limit
  }

  /** What the VMM takes at most. */
  set limit(len: number) {
    this.#limit = Math.min(len, READ_MAX)
  }

  /** Reads guest memory through the VMM; undefined where it refuses, does not answer, or cannot be asked now. */
  read(address: number, len: number): Promise<DmaAnswer | undefined> {
    return new Promise((resolve) => {
      if (this.#pending.size >= MAX_PENDING || len <= 0 || len > this.#limit) return resolve(undefined)
      const id = this.#nextId
      this.#nextId = (id + 1) & 0xffff
      const size = setHeader(this.#view, id, COMMAND.DMA_READ, DMA_ACCESS.size, 0)
      setU64(this.#view, HEADER_SIZE + DMA_ACCESS.address, address)
      setU64(this.#view, HEADER_SIZE + DMA_ACCESS.count, len)
      if (this.#pending.has(id) || !this.#send(this.#bytes, size)) return resolve(undefined)
      const timer = setTimeout(() => this.#finish(id, undefined), TIMEOUT_MS)
      timer.unref()
      this.#pending.set(id, { len, answer: resolve, timer })
    })
  }

  /** A reply of the VMM. False where nobody asked. */
  reply(message: Message): boolean {
    const question = this.#pending.get(message.id)
    if (!question || message.command !== COMMAND.DMA_READ) return false
    const { bytes, at, len } = message
    const whole = (message.flags & FLAG_ERROR) === 0 && len === DMA_ACCESS.size + question.len
    const from = at + DMA_ACCESS.data
    const answer = {
      data: bytes.slice(from, from + question.len),
      earlier: bytes.slice(from - 4, from - 4 + question.len),
    }
    this.#finish(message.id, whole ? answer : undefined)
    return true
  }

  /** Nobody will answer any more. */
  close(): void {
    for (const id of this.#pending.keys()) this.#finish(id, undefined)
  }

  #finish(id: number, answer: DmaAnswer | undefined): void {
    const question = this.#pending.get(id)
    if (!question) return
    this.#pending.delete(id)
    clearTimeout(question.timer)
    question.answer(answer)
  }
}
