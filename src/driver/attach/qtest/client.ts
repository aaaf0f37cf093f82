/**
 * The qtest protocol of QEMU: the processor's accesses, asked for over a socket. One line asked, one line answered, in
 * order, with lines about interrupts in between.
 *
 * Reads wait for their answer and hold the process up meanwhile, as a processor is held up; writes are posted: their
 * answers are looked at later. Whoever answers QEMU must therefore be another process. When QEMU is gone, reads give
 * ones and writes go nowhere, as with a device that was pulled out. Used by pci.ts.
 */

import { VmchannelError } from '../../../errors.ts'
import { closeFd, EAGAIN } from '../../../ffi/libc.ts'
import { receiveBytes } from '../../../ffi/local-socket.ts'
import { Watch } from '../../../ffi/poll.ts'
import { waitReadable } from '../../../ffi/rw.ts'
import { sendBytes } from '../../../ffi/scm.ts'

export type AccessWidth = 1 | 2 | 4

const LETTER: Readonly<Record<AccessWidth, string>> = { 1: 'b', 2: 'w', 4: 'l' }
/** Posted writes without an answer. A unix socket of the usual 208 KiB holds some 270 messages, however short. */
const POSTED_MAX = 64
const LINE_MAX = 4096
const ANSWER_MS = 30_000

/** A line of the interrupt controller that is watched. */
export interface QtestIrq {
  line: number
  level: boolean
}

export class QtestClient {
  /** Hears of interrupt lines, from the event loop. */
  onIrq: ((irq: QtestIrq) => void) | undefined
  /** QEMU has gone; not called after `close`. */
  onClose: ((reason: VmchannelError) => void) | undefined
  /** Commands sent, for those who count what they cost. */
  commands = 0
  readonly #fd: number
  readonly #watch: Watch
  readonly #encoder = new TextEncoder()
  readonly #decoder = new TextDecoder('latin1')
  readonly #input = new Uint8Array(new ArrayBuffer(65_536))
  readonly #irqs: QtestIrq[] = []
  readonly #idle: { resolve: () => void; reject: (error: Error) => void }[] = []
  #partial = ''
  #answers = 0
  #answer = ''
  #failure: VmchannelError | undefined
  #delivering = false
  /** Why there is nobody any more. */
  #closed: VmchannelError | undefined

  /** Takes the descriptor of a connected stream socket over. */
  constructor(fd: number) {
    this.#fd = fd
    this.#watch = new Watch(fd, () => this.#receive())
    this.#watch.want(true, false)
  }

  read(address: number, width: AccessWidth): number {
    return this.#number(`read${LETTER[width]} 0x${address.toString(16)}`, width)
  }
  write(address: number, width: AccessWidth, value: number): void {
    this.#post(`write${LETTER[width]} 0x${address.toString(16)} 0x${value.toString(16)}`)
  }
  /** Input from a port of the processor. */
  in(port: number, width: AccessWidth): number {
    return this.#number(`in${LETTER[width]} 0x${port.toString(16)}`, width)
  }
  out(port: number, width: AccessWidth, value: number): void {
    this.#post(`out${LETTER[width]} 0x${port.toString(16)} 0x${value.toString(16)}`)
  }

  /** Any command, to its end; gives what follows "OK". Throws VmchannelError. */
  command(line: string): string {
    if (!this.#closed) {
      this.#send(line)
      this.#settle()
    }
    const failure = this.#closed ?? this.#failure
    this.#failure = undefined
    if (failure) throw failure
    return this.#answer.slice(3)
  }

  /** Waits without holding the process up until QEMU has answered all that was asked. */
  idle(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(this.#closed)
      if (this.#answers === this.commands) return resolve()
      this.#idle.push({ resolve, reject })
    })
  }

  close(): void {
    this.onClose = undefined
    this.#end(gone())
  }

  #end(reason: VmchannelError): void {
    if (this.#closed) return
    this.#closed = reason
    this.#watch.close()
    closeFd(this.#fd)
    for (const { reject } of this.#idle.splice(0)) reject(reason)
    const { onClose } = this
    if (onClose) setImmediate(() => onClose(reason))
  }

  #number(line: string, width: AccessWidth): number {
    let text = ''
    try {
      text = this.command(line)
    } catch (error) {
      if (this.#closed) return 2 ** (8 * width) - 1
      throw error
    }
    const value = Number(text)
    if (text === '' || !Number.isInteger(value)) throw broken(`answer "${text}" to "${line}" is not a number`)
    return value
  }

  #post(line: string): void {
    if (this.commands - this.#answers >= POSTED_MAX) this.#settle()
    if (!this.#closed) this.#send(line)
  }

  #send(line: string): void {
    const bytes = this.#encoder.encode(`${line}\n`)
    this.commands++
    if (sendBytes(this.#fd, bytes, bytes.length) !== bytes.length) this.#end(gone())
  }

  /** Until every command has its answer, or nobody is there to give it. */
  #settle(): void {
    while (!this.#closed && this.#answers < this.commands) {
      if (waitReadable(this.#fd, ANSWER_MS)) this.#receive()
      else
        this.#end(
          new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `qtest: QEMU did not answer within ${ANSWER_MS / 1000} s`),
        )
    }
  }

  /** Takes what has come. */
  #receive(): void {
    const count = receiveBytes(this.#fd, this.#input)
    if (count === -EAGAIN) return
    if (count <= 0) return this.#end(gone())
    const lines = (this.#partial + this.#decoder.decode(this.#input.subarray(0, count))).split('\n')
    this.#partial = lines.pop()!
    if (this.#partial.length > LINE_MAX) return this.#end(broken('a line without an end'))
    for (const line of lines) this.#take(line)
  }

  #take(line: string): void {
    const irq = /^IRQ (raise|lower) (\d+)$/.exec(line)
    if (irq) {
      this.#irqs.push({ line: Number(irq[2]), level: irq[1] === 'raise' })
      return this.#deliver()
    }
    this.#answers++
    this.#answer = line
    if (this.#answers === this.commands) for (const { resolve } of this.#idle.splice(0)) resolve()
    if (!line.startsWith('OK')) this.#failure ??= broken(line)
  }

  /** In a turn of their own: a line may have come in the middle of an access. */
  #deliver(): void {
    if (this.#delivering) return
    this.#delivering = true
    setImmediate(() => {
      this.#delivering = false
      for (const irq of this.#irqs.splice(0)) this.onIrq?.(irq)
    })
  }
}

function gone(): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CLOSED', 'qtest: QEMU is gone')
}

function broken(what: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_QEMU', `qtest: ${what.slice(0, LINE_MAX)}`)
}
