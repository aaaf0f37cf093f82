/**
 * The other end of the control socket: typed requests, replies in any order, events. Used by the library and the command
 * line. Speaks protocol.ts; loads nothing native.
 */

import type { Socket } from 'node:net'
import { PROTOCOL_VERSION, type ControlEvent, type Method, type Methods } from '../daemon/protocol.ts'
import { VmchannelError } from '../errors.ts'
import { wait, type WaitOptions } from './abort.ts'
import { connectSocket } from './connect-socket.ts'
import { EventQueue } from './event-queue.ts'
import { LineReader, parseReply, replyError } from './lines.ts'

/** A device process answers at once; only a port that waits for its peer takes its time. */
const HELLO_MS = 10_000

interface Pending {
  resolve: (result: unknown) => void
  reject: (error: Error) => void
}

/** Methods that are requests; `port.attach` has attach.ts, since it takes the connection over. */
export type RequestMethod = Exclude<Method, 'port.attach' | 'subscribe'>

export class ControlClient {
  readonly path: string
  /** What the device process said about itself. */
  hello!: Methods['hello']['result']
  readonly #socket: Socket
  readonly #lines = new LineReader()
  readonly #pending = new Map<number, Pending>()
  readonly #queues = new Set<EventQueue>()
  readonly #onEvent = new Set<(event: ControlEvent) => void>()
  readonly #onClose = new Set<(reason: VmchannelError) => void>()
  #nextId = 1
  #reason: VmchannelError | undefined

  /** Connects, and checks that both speak the same. */
  static async connect(path: string, options: WaitOptions = {}): Promise<ControlClient> {
    const socket = await connectSocket(path, options)
    const client = new ControlClient(path, socket)
    try {
      client.hello = await client.request('hello', {}, { timeout: HELLO_MS, ...options })
      if (client.hello.protocol !== PROTOCOL_VERSION)
        throw new VmchannelError(
          'ERR_VMCHANNEL_CONTROL',
          `the device process at ${path} speaks protocol ${client.hello.protocol}, this is ${PROTOCOL_VERSION}`,
          { hint: `it is of vmchannel ${client.hello.version}: use that version, or start it again` },
        )
      return client
    } catch (error) {
      client.close()
      throw error
    }
  }

  private constructor(path: string, socket: Socket) {
    this.path = path
    this.#socket = socket
    let cause: Error | undefined
    socket.on('error', (error) => (cause = error))
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('close', () =>
      this.#end(new VmchannelError('ERR_VMCHANNEL_CLOSED', `the device process at ${path} has ended`, { cause })),
    )
  }

  get closed(): boolean {
    return this.#reason !== undefined
  }

  /** Asks, and waits for the answer. After an abort the device process may still do what was asked. */
  request<M extends RequestMethod>(
    method: M,
    params: Methods[M]['params'],
    options: WaitOptions = {},
  ): Promise<Methods[M]['result']> {
    return this.#request(method, params, options) as Promise<Methods[M]['result']>
  }

  /** Calls back for each event from here on. Events that were lost are told by a `lost` event. */
  async subscribe(
    listener: (event: ControlEvent) => void,
    { vm, ...options }: WaitOptions & { vm?: string } = {},
  ): Promise<void> {
    this.#onEvent.add(listener)
    await this.#request('subscribe', vm === undefined ? {} : { vm }, options)
  }

  /** Events from here on. A loop that is slower than they come misses some, and gets a `lost` event there. */
  async *events({ signal, vm }: { signal?: AbortSignal; vm?: string } = {}): AsyncGenerator<
    ControlEvent,
    void,
    undefined
  > {
    const queue = new EventQueue()
    this.#queues.add(queue)
    try {
      await this.#request('subscribe', vm === undefined ? {} : { vm }, { signal })
      for (;;) {
        const event = await wait<ControlEvent | undefined>('waiting for an event', { signal }, (resolve) =>
          queue.next(resolve),
        )
        if (!event) return
        yield event
      }
    } finally {
      this.#queues.delete(queue)
    }
  }

  /** Calls back once when the connection has ended, whoever ended it. */
  onClose(listener: (reason: VmchannelError) => void): void {
    this.#onClose.add(listener)
  }

  close(): void {
    this.#end(new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the connection to the device process was closed'))
  }

  /** Whether this connection alone keeps the program running. */
  ref(): void {
    this.#socket.ref()
  }

  unref(): void {
    this.#socket.unref()
  }

  #request(method: Method, params: unknown, options: WaitOptions): Promise<unknown> {
    return wait<unknown>(method, options, (resolve, reject) => {
      if (this.#reason) {
        reject(this.#reason)
        return () => {}
      }
      const id = this.#nextId++
      this.#pending.set(id, { resolve, reject })
      this.#socket.write(`${JSON.stringify({ id, method, params })}\n`)
      return () => void this.#pending.delete(id)
    })
  }

  #take(chunk: Buffer): void {
    try {
      this.#lines.push(chunk, (line) => {
        this.#line(line)
        return this.closed
      })
    } catch (error) {
      this.#end(
        error instanceof VmchannelError
          ? error
          : new VmchannelError('ERR_VMCHANNEL_INTERNAL', String(error), { cause: error }),
      )
    }
  }

  #line(line: string): void {
    const reply = parseReply(line)
    if (typeof reply.event === 'string') return this.#event(reply as unknown as ControlEvent)
    // Without an id: what we sent was no request. An id that nobody waits for was given up.
    if (reply.id === null) throw replyError(reply.error)
    const pending = this.#pending.get(reply.id ?? -1)
    if (reply.error === undefined) pending?.resolve(reply.result)
    else pending?.reject(replyError(reply.error))
  }

  #event(event: ControlEvent): void {
    for (const queue of this.#queues) queue.push(event)
    for (const listener of this.#onEvent) listener(event)
  }

  #end(reason: VmchannelError): void {
    if (this.#reason) return
    this.#reason = reason
    this.#socket.destroy()
    for (const { reject } of this.#pending.values()) reject(reason)
    this.#pending.clear()
    for (const queue of this.#queues) queue.end()
    for (const listener of this.#onClose) listener(reason)
  }
}
