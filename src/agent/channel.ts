/**
 * One connection to a guest agent: JSON objects, one a line, each request with a number that its answer repeats. Used
 * by guest-agent.ts.
 *
 * The connection may have a past: half a request of somebody who left, answers that nobody waited for, an agent that
 * only starts later and then answers everything at once. So it begins with a byte 0xFF, which resets the agent's parser
 * (and makes it answer with an error even where there was nothing to reset), and a sync request whose answer begins
 * with 0xFF and repeats a random number: everything before it belongs to others. The same again after a request that
 * was given up. Whoever reads the port before the agent does (firmware, an agent that is being restarted) may have
 * eaten the request: it is repeated every second, each time with another number.
 *
 * One request at a time: with a second one behind a long one, qemu-ga 10.0 was seen to execute both and to answer one.
 */

import { randomInt } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { wait, type WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { LineReader } from './lines.ts'
import { isObject, refusal } from './protocol.ts'

const DELIMITER = 0xff
/** An answer to guest-exec-status has at most twice 16 MiB in base64; one to guest-file-read what we asked for. */
const LINE_MAX = 48 << 20
/**
 * Values in a line, counted by their punctuation: what is that long is text in base64, and 48 MiB of empty lists would
 * take a gigabyte.
 */
const VALUES_MAX = 1 << 20
/** Until a sync request is repeated, and at most after an agent has shown that it is slow rather than deaf. */
const SYNC_MS = 1000
const SYNC_MAX_MS = 30_000
const SYNC_IDS_MAX = 64
/** Whoever piles up more than this is told so. */
const WAITING_MAX = 64

/** Requests to sync that are on their way. Only the answer to the last of them means that nothing else is. */
interface Sync {
  readonly ids: number[]
  pause: number
  timer: NodeJS.Timeout | undefined
  /** Whether anybody waits for it still. */
  readonly wanted: () => boolean
  readonly done: () => void
}

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
  readonly #lines = new LineReader(LINE_MAX)
  #nextId = 1
  #reason: VmchannelError | undefined
  #sync: Sync | undefined
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
      else this.#startSync(resolve, () => true)
      return () => void (this.onClose = undefined)
    })
  }

  #startSync(done: () => void, wanted: () => boolean): void {
    this.#sync = { ids: [], pause: SYNC_MS, timer: undefined, wanted, done }
    this.#sendSync(this.#sync)
  }

  #sendSync(sync: Sync): void {
    clearTimeout(sync.timer)
    sync.timer = setTimeout(() => {
      // The guest takes nothing: what was said is still to come to it.
      if (this.#stream.writableLength > 0 || !sync.wanted()) sync.timer?.refresh()
      else this.#sendSync(sync)
    }, sync.pause)
    if (sync.ids.length >= SYNC_IDS_MAX) sync.ids.shift()
    const id = randomInt(1, 2 ** 47)
    sync.ids.push(id)
    this.#stream.write(Buffer.from([DELIMITER]))
    this.#stream.write(`${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } })}\n`)
  }

  #synced(sync: Sync, id: unknown): void {
    const at = sync.ids.indexOf(id as number)
    if (at < 0) return void this.stale++
    if (at < sync.ids.length - 1) {
      // The agent is slow: the answers to the others are on their way, and a further request would only be one more.
      sync.ids.splice(0, at + 1)
      sync.pause = Math.min(2 * sync.pause, SYNC_MAX_MS)
      clearTimeout(sync.timer)
      sync.timer = setTimeout(() => this.#sendSync(sync), sync.pause)
      return
    }
    clearTimeout(sync.timer)
    this.#sync = undefined
    sync.done()
  }

  /** Sends the next request where the agent is free. */
  #pump(): void {
    if (this.#sync || this.#queue.length === 0) return
    if (this.#current === 'stale')
      return this.#startSync(
        () => {
          this.#current = undefined
          this.#pump()
        },
        () => this.#queue.length > 0,
      )
    if (this.#current) return
    const { id, what, args } = (this.#current = this.#queue.shift()!)
    this.#stream.write(`${JSON.stringify({ execute: what, arguments: args ?? {}, id })}\n`)
  }

  #take(chunk: Buffer): void {
    if (this.#reason) return
    const fits = this.#lines.push(chunk, (line) => {
      this.#line(line)
      return this.#reason === undefined
    })
    if (!fits) this.#end(tooMuch(`a line of more than ${LINE_MAX} bytes`))
  }

  #line(line: Buffer): void {
    if (line.length > VALUES_MAX && countValues(line) > VALUES_MAX)
      return this.#end(tooMuch(`an answer of more than ${VALUES_MAX} values`))
    const mark = line.lastIndexOf(DELIMITER)
    const answer = parse(line.subarray(mark + 1).toString())
    if (this.#sync) {
      if (mark >= 0 && answer) this.#synced(this.#sync, answer['return'])
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
    this.#lines.clear()
    clearTimeout(this.#sync?.timer)
    this.#sync = undefined
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

function tooMuch(what: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_AGENT', `the guest sent ${what}`, {
    hint: 'the connection was closed; ask for less in one request: of a file, one part after the other',
  })
}

/** At most as many as there are, and never many in base64. */
function countValues(line: Buffer): number {
  let count = 0
  for (const byte of line) if (byte === 0x2c || byte === 0x5b || byte === 0x7b || byte === 0x3a) count++
  return count
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) && ('return' in value || 'error' in value) ? value : undefined
  } catch {
    return undefined
  }
}
