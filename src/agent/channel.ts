/**
 * One connection to a guest agent: JSON objects, one a line, each request with a number that its answer repeats. Used by
 * guest-agent.ts.
 *
 * The connection may have a past: half a request of somebody who left, answers that nobody waited for, an agent that only
 * starts later and then answers everything at once. So it begins with a byte 0xFF, which resets the agent's parser (and
 * makes it answer with an error even where there was nothing to reset), and a sync request whose answer begins with 0xFF
 * and repeats a random number: everything before it belongs to others. The same again after a request that was given up.
 *
 * One request at a time: with a second one behind a long one, qemu-ga 10.0 was seen to execute both and to answer one.
 */

import { randomInt } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { wait, type WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { refusal } from './protocol.ts'

const DELIMITER = 0xff
const NEWLINE = 10
/** An answer to guest-exec-status has at most twice 16 MiB in base64; one to guest-file-read what we asked for. */
const LINE_MAX = 48 << 20
/** Whoever piles up more than this is told so. */
const WAITING_MAX = 64

interface Waiting {
  id: number
  what: string
  args: unknown
  resolve: (value: unknown) => void
  reject: (error: Error) => void
}

export class AgentChannel {
  readonly #stream: Duplex
  /** Not sent yet. */
  readonly #queue: Waiting[] = []
  /** Sent; 'stale' where nobody waits for its answer any more. */
  #current: Waiting | 'stale' | undefined
  #chunks: Buffer[] = []
  #len = 0
  #nextId = 1
  #reason: VmchannelError | undefined
  #sync: ((id: unknown) => void) | undefined
  /** Lines that came without anybody to want them. */
  stale = 0
  onClose: ((reason: VmchannelError) => void) | undefined

  /** Takes the stream over. It is destroyed where the agent does not answer. */
  static async open(stream: Duplex, options: WaitOptions = {}): Promise<AgentChannel> {
    const channel = new AgentChannel(stream)
    try {
      await channel.#synchronize(options)
      return channel
    } catch (error) {
      channel.close()
      throw error
    }
  }

  private constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('data', (chunk: Buffer) => this.#take(chunk))
    stream.on('error', (cause) => this.#end(gone(cause)))
    stream.on('end', () => this.#end(gone()))
    stream.on('close', () => this.#end(gone()))
    stream.resume() // a port that was attached comes paused
  }

  get closed(): boolean {
    return this.#reason !== undefined
  }

  /** Asks, and waits for the answer. Giving up does not stop the guest; its answer is dropped when it comes. */
  request(what: string, args: unknown, options: WaitOptions = {}): Promise<unknown> {
    return wait<unknown>(`guest agent, ${what}`, options, (resolve, reject) => {
      if (this.#reason) {
        reject(this.#reason)
        return () => {}
      }
      if (this.#queue.length >= WAITING_MAX) {
        reject(
          new VmchannelError('ERR_VMCHANNEL_IN_USE', `${WAITING_MAX} requests wait for the guest agent already`, {
            hint: 'it does one after the other; the first of them takes its time, or the agent has stopped',
          }),
        )
        return () => {}
      }
      const waiting: Waiting = { id: this.#nextId++, what, args, resolve, reject }
      this.#queue.push(waiting)
      this.#pump()
      return () => {
        const at = this.#queue.indexOf(waiting)
        if (at >= 0) this.#queue.splice(at, 1)
        if (this.#current === waiting) {
          this.#current = 'stale'
          this.#pump()
        }
      }
    })
  }

  close(): void {
    this.#end(new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the connection to the guest agent was closed'))
  }

  #synchronize(options: WaitOptions): Promise<void> {
    return wait<void>('waiting for the guest agent', options, (resolve, reject) => {
      this.onClose = reject
      if (this.#reason) reject(this.#reason)
      this.#sendSync(resolve)
      return () => void (this.onClose = undefined)
    })
  }

  #sendSync(then: () => void): void {
    const mine = randomInt(1, 2 ** 47)
    this.#sync = (id) => {
      if (id !== mine) return
      this.#sync = undefined
      then()
    }
    this.#stream.write(Buffer.from([DELIMITER]))
    this.#stream.write(`${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id: mine } })}\n`)
  }

  /** Sends the next request where the agent is free. */
  #pump(): void {
    if (this.#sync || this.#queue.length === 0) return
    if (this.#current === 'stale')
      return this.#sendSync(() => {
        this.#current = undefined
        this.#pump()
      })
    if (this.#current) return
    const { id, what, args } = (this.#current = this.#queue.shift()!)
    this.#stream.write(`${JSON.stringify({ execute: what, arguments: args ?? {}, id })}\n`)
  }

  #take(chunk: Buffer): void {
    for (let rest = chunk; rest.length > 0 && !this.#reason;) {
      const at = rest.indexOf(NEWLINE)
      const end = at < 0 ? rest.length : at
      this.#len += end
      if (this.#len > LINE_MAX)
        return this.#end(
          new VmchannelError('ERR_VMCHANNEL_AGENT', `the guest sent a line of more than ${LINE_MAX} bytes`),
        )
      this.#chunks.push(rest.subarray(0, end))
      if (at < 0) return
      const line = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
      this.#chunks = []
      this.#len = 0
      this.#line(line)
      rest = rest.subarray(at + 1)
    }
  }

  #line(line: Buffer): void {
    const mark = line.lastIndexOf(DELIMITER)
    const answer = parse(line.subarray(mark + 1).toString())
    if (this.#sync) {
      if (mark >= 0 && answer) this.#sync(answer['return'])
      else this.stale++
      return
    }
    const current = this.#current
    // An agent too old for numbers answers in order all the same.
    const ours = current !== undefined && current !== 'stale' && (answer?.['id'] ?? current.id) === current.id
    if (mark >= 0 || !answer || !ours) return void this.stale++
    this.#current = undefined
    if (answer['error'] === undefined) current.resolve(answer['return'])
    else current.reject(refusal(current.what, answer['error']))
    this.#pump()
  }

  #end(reason: VmchannelError): void {
    if (this.#reason) return
    this.#reason = reason
    this.#stream.destroy()
    this.#chunks = []
    const current = this.#current
    this.#current = undefined
    if (current && current !== 'stale') current.reject(reason)
    for (const { reject } of this.#queue.splice(0)) reject(reason)
    this.onClose?.(reason)
  }
}

function gone(cause?: Error): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the port of the guest agent was closed', { cause })
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    const record = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
    return 'return' in record || 'error' in record ? record : undefined
  } catch {
    return undefined
  }
}
