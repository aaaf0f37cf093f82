/**
 * QEMU's machine protocol: one JSON object a line. `connectQmp` goes to a socket where QEMU listens (screenlock); the lab
 * lets QEMU connect to it, and gives the socket to the constructor.
 */

import { EventEmitter } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { wait, type WaitOptions } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import type { QmpEvent } from './protocol.ts'

interface Pending {
  name: string
  resolve: (value: unknown) => void
  reject: (error: Error) => void
  timer: NodeJS.Timeout
}

const LINE_MAX = 16 << 20
const GREETING_MS = 5000

/** Emits `event` with each QmpEvent, and `close` once. */
export class QmpClient extends EventEmitter<{ event: [QmpEvent]; close: [] }> {
  readonly #socket: Socket
  readonly #pending = new Map<number, Pending>()
  #nextId = 1
  #partial = ''
  #closed = false
  #greeted: (() => void) | undefined

  constructor(socket: Socket) {
    super()
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: unknown) => this.#take(String(text)))
    socket.on('error', () => {})
    socket.on('close', () => this.#end())
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Leaves the negotiation mode; once, before anything else. */
  async negotiate(): Promise<void> {
    await this.execute('qmp_capabilities')
  }

  /** Until QEMU has said who it is. */
  greeting(options: WaitOptions): Promise<void> {
    return wait<void>("QEMU's greeting", options, (resolve, reject) => {
      const gone = (): void => reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', 'the connection was closed at once'))
      this.#greeted = resolve
      this.on('close', gone)
      return () => void this.off('close', gone)
    })
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
    return wait<QmpEvent>(`QMP event ${name}`, { timeout }, (resolve) => {
      const listen = (found: QmpEvent): void => {
        if (found.event === name) resolve(found)
      }
      this.on('event', listen)
      return () => void this.off('event', listen)
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
      if (line.trim() === '') continue
      let message: unknown
      try {
        message = JSON.parse(line)
      } catch {
        // Not QEMU, or not its machine protocol.
        return this.close()
      }
      if (typeof message === 'object' && message !== null) this.#answer(message as Record<string, unknown>)
    }
  }

  #answer(message: Record<string, unknown>): void {
    if ('QMP' in message) this.#greeted?.()
    if (typeof message['event'] === 'string') {
      const data = (message['data'] ?? {}) as Record<string, unknown>
      const stamp = (message['timestamp'] ?? {}) as { seconds?: number; microseconds?: number }
      const time = Math.round((stamp.seconds ?? 0) * 1000 + (stamp.microseconds ?? 0) / 1000)
      this.emit('event', { event: message['event'], data, time })
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
    if (this.#closed) return
    this.#closed = true
    for (const { name, reject, timer } of this.#pending.values()) {
      clearTimeout(timer)
      reject(new VmchannelError('ERR_VMCHANNEL_CLOSED', `QMP ${name}: QEMU is gone`))
    }
    this.#pending.clear()
    this.emit('close')
  }
}

const REASONS: Readonly<Record<string, readonly [string, string]>> = {
  ENOENT: ['there is no such socket', 'start QEMU with -qmp unix:PATH,server=on,wait=off'],
  ENOTSOCK: ['this is no socket', 'name the socket of -qmp unix:PATH,server=on,wait=off'],
  ECONNREFUSED: ['nobody listens there', 'has QEMU ended? The socket is a leftover'],
  EACCES: ['no permission', 'only the user who runs QEMU, and root, may connect'],
}

/** Goes to the unix socket of `-qmp unix:PATH,server=on`, and is ready for commands. One client at a time can be there. */
export async function connectQmp(path: string, options: WaitOptions = {}): Promise<QmpClient> {
  const limits = { timeout: GREETING_MS, ...options }
  const socket = await wait<Socket>(`connecting to ${path}`, limits, (resolve, reject) => {
    const socket = createConnection({ path })
    let connected = false
    socket.once('connect', () => {
      connected = true
      resolve(socket)
    })
    const failed = (cause: NodeJS.ErrnoException): void => {
      const [why, hint] = REASONS[cause.code ?? ''] ?? [cause.message, 'is this the QMP socket of QEMU?']
      reject(new VmchannelError('ERR_VMCHANNEL_QEMU', `QMP socket ${path}: ${why}`, { hint, cause }))
    }
    socket.once('error', failed)
    return () => {
      socket.off('error', failed)
      socket.on('error', () => {})
      if (!connected) socket.destroy()
    }
  })
  const client = new QmpClient(socket)
  try {
    await client.greeting(limits)
    await client.negotiate()
    return client
  } catch (cause) {
    client.close()
    const code = cause instanceof VmchannelError ? cause.code : 'ERR_VMCHANNEL_INTERNAL'
    if (code === 'ERR_VMCHANNEL_ABORTED') throw cause
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', `QMP socket ${path}: no greeting of QEMU`, {
      hint: 'is another program at this socket already (it takes one), or is it no QMP socket?',
      cause,
    })
  }
}
