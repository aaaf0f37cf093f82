/**
 * The host's end of lab/guest/agent.c: shell commands in the guest over its second serial port, with output, exit
 * status and kill. The kernel's console is another port, so nothing can get between the frames. machine.ts owns one.
 */
import type { Socket } from 'node:net'
import { VmchannelError } from '../src/errors.ts'
import { longError } from './long-error.ts'

export interface RunResult {
  /** Exit status; 128+N when signal N ended it. */
  status: number
  /** Standard output and standard error, as they came. */
  output: string
}

const MAGIC = Buffer.from('\x01\xfevmchannel-agent\xfd\x02', 'latin1')
const HEADER = 9
const COMMAND_MAX = 32 << 10 // the guest's tty holds no more while its reader is busy
const OUTPUT_MAX = 8 << 20

/** A command that runs in the guest. */
export class Job {
  readonly command: string
  readonly #send: (type: string, payload: Uint8Array) => void
  readonly #end: Promise<number>
  #settle: { resolve: (status: number) => void; reject: (error: Error) => void } | undefined
  #chunks: Buffer[] = []
  #length = 0
  #watchers: (() => void)[] = []

  constructor(command: string, send: (type: string, payload: Uint8Array) => void) {
    this.command = command
    this.#send = send
    this.#end = new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
    this.#end.catch(() => {}) // nobody has to wait for a job
  }

  /** What it has printed up to now. */
  get output(): string {
    return Buffer.concat(this.#chunks).toString()
  }

  get ended(): boolean {
    return this.#settle === undefined
  }

  /** Its end. A job that takes longer is killed, and the wait fails. */
  async wait(timeout = 30_000): Promise<RunResult> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.kill(9)
        const tail = this.output.slice(-2000)
        reject(
          longError('ERR_VMCHANNEL_TIMEOUT', `guest command did not end in ${timeout} ms: ${this.command}\n${tail}`),
        )
      }, timeout)
    })
    try {
      return { status: await Promise.race([this.#end, late]), output: this.output }
    } finally {
      clearTimeout(timer)
    }
  }

  /** Until its output matches: for jobs that say when they are ready. */
  async waitForOutput(pattern: RegExp, timeout = 30_000): Promise<RegExpExecArray> {
    const deadline = Date.now() + timeout
    for (;;) {
      const found = pattern.exec(this.output)
      if (found) return found
      if (this.ended || Date.now() >= deadline) {
        const why = this.ended ? 'ended' : `ran ${timeout} ms`
        throw longError(
          'ERR_VMCHANNEL_TIMEOUT',
          `${this.command}: ${why} without ${pattern}\n${this.output.slice(-2000)}`,
        )
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadline - Date.now())
        this.#watchers.push(() => (clearTimeout(timer), resolve()))
      })
    }
  }

  /** Sends a signal to the command and its children. */
  kill(signal = 15): void {
    if (!this.ended) this.#send('K', Uint8Array.of(signal))
  }

  /** The link's business. */
  append(bytes: Buffer): void {
    this.#length += bytes.length
    if (this.#length > OUTPUT_MAX) {
      this.kill(9)
      return this.fail(
        new VmchannelError('ERR_VMCHANNEL_INTERNAL', `${this.command}: more than ${OUTPUT_MAX} bytes of output`),
      )
    }
    this.#chunks.push(bytes)
    this.#wake()
  }

  /** The link's business. */
  finish(status: number): void {
    this.#settle?.resolve(status)
    this.#settle = undefined
    this.#wake()
  }

  /** The link's business. */
  fail(error: Error): void {
    this.#settle?.reject(error)
    this.#settle = undefined
    this.#wake()
  }

  #wake(): void {
    for (const watcher of this.#watchers.splice(0)) watcher()
  }
}

export class AgentLink {
  readonly #socket: Socket
  readonly #jobs = new Map<number, Job>()
  #nextId = 1
  #held: Buffer = Buffer.alloc(0)
  #up = false
  #onUp: (() => void) | undefined

  /** `onUp` is called each time an agent starts: at boot and after each reset. */
  constructor(socket: Socket, onUp: () => void) {
    this.#socket = socket
    this.#onUp = onUp
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#onUp = undefined
      this.down('QEMU is gone')
    })
  }

  /** False when QEMU has gone. */
  get open(): boolean {
    return !this.#socket.destroyed
  }

  start(command: string): Job {
    const text = Buffer.from(command)
    if (!this.#up) throw new VmchannelError('ERR_VMCHANNEL_CLOSED', `the guest's agent is not up: ${command}`)
    if (text.length > COMMAND_MAX) {
      throw new VmchannelError(
        'ERR_VMCHANNEL_USAGE',
        `a guest command may have ${COMMAND_MAX} bytes, this one has ${text.length}`,
      )
    }
    const id = this.#nextId++
    const send = (type: string, payload: Uint8Array): void => {
      const frame = Buffer.alloc(HEADER + payload.length)
      frame.writeUInt32LE(payload.length, 0)
      frame.writeUInt32LE(id, 4)
      frame.write(type, 8, 'latin1')
      frame.set(payload, HEADER)
      this.#socket.write(frame)
    }
    const job = new Job(command, send)
    this.#jobs.set(id, job)
    send('S', text)
    return job
  }

  /** The agent that runs now is given up: its jobs fail, what it still says is dropped. */
  down(why: string): void {
    this.#up = false
    for (const job of this.#jobs.values())
      job.fail(new VmchannelError('ERR_VMCHANNEL_CLOSED', `${why}: ${job.command}`))
    this.#jobs.clear()
  }

  #take(chunk: Buffer): void {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    // Looked for in all that comes: a guest may restart in the middle of a frame.
    const magic = this.#held.lastIndexOf(MAGIC)
    if (magic >= 0) {
      this.down('the guest has restarted')
      this.#held = this.#held.subarray(magic + MAGIC.length)
      this.#up = true
      this.#onUp?.()
    } else if (!this.#up) {
      this.#held = this.#held.subarray(-MAGIC.length)
      return
    }
    for (;;) {
      const end = this.#held.length < HEADER ? Infinity : HEADER + this.#held.readUInt32LE(0)
      if (this.#held.length < end) return
      const job = this.#jobs.get(this.#held.readUInt32LE(4))
      const payload = this.#held.subarray(HEADER, end)
      const type = this.#held[8]
      if (job && type === 0x4f) job.append(payload)
      if (job && type === 0x45) {
        this.#jobs.delete(this.#held.readUInt32LE(4))
        job.finish(payload.readInt32LE(0))
      }
      this.#held = this.#held.subarray(end)
    }
  }
}
