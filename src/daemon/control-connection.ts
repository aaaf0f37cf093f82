/**
 * One connection to the control socket: lines in, lines out, both bounded, and the turn into the far end of a port.
 * Made by control-server.ts; owns its descriptor until then.
 */

import { describeError, VmchannelError } from '../errors.ts'
import { closeFd, EAGAIN } from '../ffi/libc.ts'
import { receiveBytes } from '../ffi/local-socket.ts'
import { Watch, type Readiness } from '../ffi/poll.ts'
import { hungUp } from '../ffi/rw.ts'
import type { DeviceProcess } from './device-process.ts'
import { attachTarget, METHODS } from './methods.ts'
import { OutputQueue } from './output-queue.ts'
import { checked, PARAMS } from './params.ts'
import { LINE_MAX, type ControlError, type ControlEvent, type Method, type Methods } from './protocol.ts'

/** Requests of one connection that are under way at once; more are not read. */
const REQUESTS_MAX = 16
const CHUNK = 16 << 10
const NEWLINE = 10

type RequestId = number | string

interface Request {
  id: RequestId
  method: Method
  params: unknown
}

export class ControlConnection {
  readonly #fd: number
  readonly #device: DeviceProcess
  readonly #watch: Watch
  readonly #output: OutputQueue
  readonly #ended: () => void
  readonly #abort = new AbortController()
  /** The start of a line whose end has not come. */
  #partial: Buffer = Buffer.alloc(0)
  /** Whole lines and a partial one that wait because of REQUESTS_MAX or a full output: at most what one read gave. */
  #unread: Buffer = Buffer.alloc(0)
  #pending = 0
  #subscription: { vm: string | undefined } | undefined
  #attaching: { id: RequestId; params: Methods['port.attach']['params'] } | undefined
  /** The other side has nothing more to say, or nothing sensible: over when all is answered. */
  #last = false
  #closed = false

  constructor(fd: number, device: DeviceProcess, ended: () => void) {
    this.#fd = fd
    this.#device = device
    this.#ended = ended
    this.#output = new OutputQueue(fd)
    this.#watch = new Watch(fd, (ready) => this.#onReady(ready))
    this.#watch.want(true, false)
  }

  wants(event: ControlEvent): boolean {
    const subscription = this.#subscription
    return subscription !== undefined && (subscription.vm === undefined || subscription.vm === event.vm)
  }

  publish(line: Buffer): void {
    this.#output.event(line)
    this.#advance()
  }

  close(): void {
    if (this.#release()) closeFd(this.#fd)
  }

  /** Stops everything; the descriptor is the caller's from here on. False where that was done before. */
  #release(): boolean {
    if (this.#closed) return false
    this.#closed = true
    this.#watch.close()
    this.#abort.abort()
    this.#ended()
    return true
  }

  #onReady(ready: Readiness): void {
    if (ready.readable && !this.#busy) this.#read()
    this.#advance()
  }

  /** Whether no more is read for now. */
  get #busy(): boolean {
    return this.#last || this.#pending >= REQUESTS_MAX || this.#output.full || this.#attaching !== undefined
  }

  /** Sends what there is, then does and awaits what is next. */
  #advance(): void {
    if (this.#closed) return
    if (this.#unread.length > 0 && !this.#busy) this.#takeLines(this.#unread)
    if (!this.#output.flush()) return this.close()
    const idle = this.#pending === 0 && this.#output.size === 0
    if (idle && this.#attaching) return this.#attach(this.#attaching)
    if (idle && this.#last) return this.close()
    this.#watch.want(!this.#busy, this.#output.size > 0)
  }

  #read(): void {
    const chunk = Buffer.allocUnsafe(CHUNK)
    const done = receiveBytes(this.#fd, chunk)
    if (done === -EAGAIN) return
    // A client that has said all it wants may still wait for the answers; one that hung up does not.
    if (done === 0 && !hungUp(this.#fd)) this.#last = true
    else if (done <= 0) this.close()
    else this.#takeLines(chunk.subarray(0, done))
  }

  #takeLines(bytes: Buffer): void {
    let rest = bytes
    while (rest.length > 0 && !this.#busy) {
      const end = rest.indexOf(NEWLINE)
      const part = end === -1 ? rest : rest.subarray(0, end)
      if (this.#partial.length + part.length >= LINE_MAX) {
        this.#partial = Buffer.alloc(0)
        this.#unread = Buffer.alloc(0)
        return this.#giveUp(`a request has more than ${LINE_MAX} bytes`)
      }
      const line = this.#partial.length === 0 ? part : Buffer.concat([this.#partial, part])
      rest = end === -1 ? rest.subarray(rest.length) : rest.subarray(end + 1)
      if (end === -1) this.#partial = Buffer.from(line)
      else {
        this.#partial = Buffer.alloc(0)
        this.#line(line)
      }
    }
    this.#unread = this.#last ? Buffer.alloc(0) : Buffer.from(rest)
    if (this.#attaching && (this.#unread.length > 0 || this.#partial.length > 0)) {
      const { id } = this.#attaching
      this.#attaching = undefined
      this.#fail(id, new VmchannelError('ERR_VMCHANNEL_CONTROL', 'bytes came before port.attach was answered'))
      this.#last = true
    }
  }

  #line(line: Buffer): void {
    const request = parseRequest(line)
    if (typeof request === 'string') return this.#giveUp(request)
    const { id, method, params } = request
    try {
      if (!Object.hasOwn(PARAMS, method))
        throw new VmchannelError('ERR_VMCHANNEL_CONTROL', `there is no method "${method.slice(0, 64)}"`, {
          hint: `there are: ${Object.keys(PARAMS).join(', ')}`,
        })
      const value = checked(PARAMS[method], params, method)
      if (method === 'port.attach') this.#askAttach(id, value as Methods['port.attach']['params'])
      else if (method === 'subscribe') this.#subscribe(id, value as Methods['subscribe']['params'])
      else void this.#run(id, method, value)
    } catch (error) {
      this.#fail(id, error)
    }
  }

  async #run(id: RequestId, method: Exclude<Method, 'port.attach' | 'subscribe'>, params: unknown): Promise<void> {
    this.#pending++
    const run = METHODS[method] as (device: DeviceProcess, params: unknown, signal: AbortSignal) => unknown
    try {
      const result = await run(this.#device, params, this.#abort.signal)
      this.#say({ id, result })
    } catch (error) {
      this.#fail(id, error)
    }
    this.#pending--
    this.#advance()
  }

  #subscribe(id: RequestId, { vm }: Methods['subscribe']['params']): void {
    if (vm !== undefined) this.#device.vm(vm)
    this.#subscription = { vm }
    this.#say({ id, result: {} })
  }

  #askAttach(id: RequestId, params: Methods['port.attach']['params']): void {
    if (this.#pending > 0 || this.#subscription)
      throw new VmchannelError('ERR_VMCHANNEL_CONTROL', 'port.attach needs a connection with nothing else on it')
    attachTarget(this.#device, params)
    this.#attaching = { id, params }
  }

  /** Everything before has been answered and sent: the answer to this goes out whole, then the descriptor changes hands. */
  #attach({ id, params }: { id: RequestId; params: Methods['port.attach']['params'] }): void {
    this.#attaching = undefined
    try {
      const { chardev, info } = attachTarget(this.#device, params)
      this.#say({ id, result: info })
      // An empty socket buffer takes a line this short; where it does not, nobody is there to read it.
      if (!this.#output.flush() || this.#output.size > 0) return this.close()
      if (this.#release() && !chardev.attach(this.#fd)) closeFd(this.#fd)
    } catch (error) {
      this.#fail(id, error)
      this.#advance()
    }
  }

  #giveUp(why: string): void {
    this.#last = true
    this.#say({ id: null, error: { code: 'ERR_VMCHANNEL_CONTROL', message: why } })
  }

  #fail(id: RequestId, error: unknown): void {
    const known = error instanceof VmchannelError
    // A request that cannot be done is the asker's business; what we did not foresee is ours as well.
    if (!known) this.#device.log.error(`a request failed: ${error instanceof Error ? error.stack : String(error)}`)
    const reply: ControlError = {
      code: known ? error.code : 'ERR_VMCHANNEL_INTERNAL',
      message: known ? error.message : describeError(error),
    }
    if (known && error.hint !== undefined) reply.hint = error.hint
    this.#say({ id, error: reply })
  }

  #say(message: unknown): void {
    if (!this.#closed) this.#output.reply(Buffer.from(`${JSON.stringify(message)}\n`))
  }
}

/** A request, or what is wrong with it. */
function parseRequest(line: Buffer): Request | string {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(line))
  } catch {
    return 'a request is a JSON object on a line of its own'
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'a request is a JSON object'
  const { id, method, params = {} } = value as Record<string, unknown>
  if (!(typeof id === 'number' || (typeof id === 'string' && id.length <= 64)))
    return 'a request has an id: a number or a short string'
  if (typeof method !== 'string') return 'a request names its method'
  return { id, method: method as Method, params }
}
