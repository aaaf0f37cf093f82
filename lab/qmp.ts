/**
 * A small client for QEMU's machine protocol: one JSON object a line. QEMU is told to connect to us, so there is no
 * moment at which the socket does not exist yet. machine.ts owns one.
 */
import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { VmchannelError } from '../src/errors.ts'

export interface QmpEvent {
  event: string
  data: Record<string, unknown>
}

interface Pending {
  name: string
  resolve: (value: unknown) => void
  reject: (error: Error) => void
  timer: NodeJS.Timeout
}

const LINE_MAX = 16 << 20

/** Emits `event` with each QmpEvent. */
export class QmpClient extends EventEmitter<{ event: [QmpEvent] }> {
  readonly #socket: Socket
  readonly #pending = new Map<number, Pending>()
  #nextId = 1
  #partial = ''
  #closed = false

  constructor(socket: Socket) {
    super()
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: unknown) => this.#take(String(text)))
    socket.on('error', () => {})
    socket.on('close', () => this.#end())
  }

  /** Leaves the negotiation mode; once, before anything else. */
  async negotiate(): Promise<void> {
    await this.execute('qmp_capabilities')
  }

  execute(name: string, args?: Record<string, unknown>, timeout = 10_000): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', `QMP ${name}: QEMU is gone`))
      const id = this.#nextId++
      const timer = setTimeout(() => {
        this.#pending.delete(id)
        reject(new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `QMP ${name}: no answer within ${timeout} ms`))
      }, timeout)
      this.#pending.set(id, { name, resolve, reject, timer })
      this.#socket.write(`${JSON.stringify({ execute: name, id, ...(args && { arguments: args }) })}\n`)
    })
  }

  /** The next event of that name. Ask before causing it. */
  nextEvent(name: string, timeout = 10_000): Promise<QmpEvent> {
    return new Promise((resolve, reject) => {
      const listen = (found: QmpEvent) => {
        if (found.event !== name) return
        this.off('event', listen)
        clearTimeout(timer)
        resolve(found)
      }
      const timer = setTimeout(() => {
        this.off('event', listen)
        reject(new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `QMP: no event ${name} within ${timeout} ms`))
      }, timeout)
      this.on('event', listen)
    })
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(text: string): void {
    const lines = (this.#partial + text).split('\n')
    this.#partial = lines.pop() ?? ''
    if (this.#partial.length > LINE_MAX) return this.close()
    for (const line of lines) {
      if (line.trim() !== '') this.#answer(JSON.parse(line) as Record<string, unknown>)
    }
  }

  #answer(message: Record<string, unknown>): void {
    if (typeof message['event'] === 'string') {
      const data = (message['data'] ?? {}) as Record<string, unknown>
      this.emit('event', { event: message['event'], data })
      return
    }
    const id = Number(message['id'])
    const pending = this.#pending.get(id)
    if (!pending) return // the greeting, or an answer that came too late
    this.#pending.delete(id)
    clearTimeout(pending.timer)
    const error = message['error'] as { class: string; desc: string } | undefined
    if (error)
      pending.reject(new VmchannelError('ERR_VMCHANNEL_QEMU', `QMP ${pending.name}: ${error.desc} (${error.class})`))
    else pending.resolve(message['return'])
  }

  #end(): void {
    this.#closed = true
    for (const { name, reject, timer } of this.#pending.values()) {
      clearTimeout(timer)
      reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', `QMP ${name}: QEMU is gone`))
    }
    this.#pending.clear()
  }
}
