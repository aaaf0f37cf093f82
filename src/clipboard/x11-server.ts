/**
 * A connection to an X server: greeting, requests with their answers, events. Nothing here is about clipboards. Used by
 * x11-clipboard.ts and x11-watch.ts; x11-auth.ts knows display and key.
 */

import { connect, type Socket } from 'node:net'
import { wait } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import { findKey, parseDisplay } from './x11-auth.ts'
import { REQUEST } from './x11-numbers.ts'

const ANSWER_MS = 10_000
const FINISH_MS = 1000
const PACKET = 32
/** The greeting of a server with many screens has some kilobytes; of a property we ask for this much and no more. */
export const PROPERTY_PART: number = 256 << 10
const EXTRA_MAX = PROPERTY_PART + 1024
const ANSWER = 1
const GENERIC_EVENT = 35

export class XServer {
  readonly #socket: Socket
  readonly #label: string
  #held: Buffer[] = []
  #heldLen = 0
  #began: ((greeting: Buffer) => void) | undefined
  #yielding = false
  #sequence = 0
  readonly #answers = new Map<number, { resolve: (packet: Buffer) => void; reject: (error: Error) => void }>()
  #gone: Error | undefined
  /** The window that is there anyway. */
  root = 0
  /** Of the numbers that things of ours may have. */
  #idBase = 0
  onEvent: ((event: Buffer) => void) | undefined
  onGone: ((error: Error) => void) | undefined

  /** Connects and shakes hands. */
  static async open(env: NodeJS.ProcessEnv): Promise<XServer> {
    const display = parseDisplay(env['DISPLAY'] ?? '')
    let why: Error | undefined
    for (const target of display.targets) {
      const socket = await wait<Socket>('connecting to the X server', { timeout: ANSWER_MS }, (resolve, reject) => {
        const one = connect(target)
        one.once('connect', () => resolve(one)).once('error', reject)
        return () => one.off('error', reject).on('error', () => {})
      }).catch((error: Error) => void (why ??= error))
      if (!socket) continue
      const server = new XServer(socket, display.label)
      try {
        await server.#greet(findKey(env, display))
        return server
      } catch (error) {
        server.close()
        throw error
      }
    }
    throw new VmchannelError(
      'ERR_VMCHANNEL_PLATFORM',
      `there is no X server at DISPLAY=${display.label}: ${why?.message}`,
      { cause: why, hint: 'run it in the desktop session whose clipboard is meant' },
    )
  }

  private constructor(socket: Socket, label: string) {
    this.#socket = socket
    this.#label = label
    socket.on('data', (bytes: Buffer) => this.#take(bytes))
    socket.on('close', () => this.#end(this.fault('the X server has ended')))
  }

  fault(why: string): VmchannelError {
    return new VmchannelError('ERR_VMCHANNEL_PLATFORM', `display ${this.#label}: ${why}`)
  }

  /** A number for the n-th thing that we make. */
  id(n: number): number {
    return this.#idBase + n
  }

  /** `detail`: the second byte of the request. What is wrong with a request that has no answer is not told. */
  send(major: number, detail: number, body: Uint8Array = new Uint8Array()): number {
    const head = Buffer.alloc(4)
    head[0] = major
    head[1] = detail
    head.writeUInt16LE(1 + body.length / 4, 2)
    this.#socket.write(Buffer.concat([head, body]))
    return (this.#sequence = (this.#sequence + 1) & 0xffff)
  }

  request(major: number, detail: number, body: Uint8Array): Promise<Buffer> {
    return wait<Buffer>(`X server, request ${major}`, { timeout: ANSWER_MS }, (resolve, reject) => {
      if (this.#gone) reject(this.#gone)
      const sequence = this.send(major, detail, body)
      this.#answers.set(sequence, { resolve, reject })
      return () => void this.#answers.delete(sequence)
    })
  }

  async atom(name: string): Promise<number> {
    return (await this.request(REQUEST.internAtom, 0, counted(name))).readUInt32LE(8)
  }

  /** Numbers of the first request and the first event of an extension, where it is there. */
  async extension(name: string): Promise<{ major: number; event: number } | undefined> {
    const answer = await this.request(REQUEST.queryExtension, 0, counted(name))
    return answer[8] === 1 ? { major: answer[9]!, event: answer[10]! } : undefined
  }

  /** Closes when all that was sent has been taken, or after a while. */
  async finish(): Promise<void> {
    this.onGone = undefined
    if (!this.#gone && !this.#socket.destroyed) {
      const timer = setTimeout(() => this.#socket.destroy(), FINISH_MS)
      await new Promise((resolve) => this.#socket.once('close', resolve).end())
      clearTimeout(timer)
    }
    this.close()
  }

  close(): void {
    this.#gone ??= this.fault('closed')
    this.onGone = undefined
    this.#socket.destroy()
    for (const { reject } of this.#answers.values()) reject(this.#gone)
  }

  async #greet(key: { name: string; data: Buffer } | undefined): Promise<void> {
    const [word, data] = [Buffer.from(key?.name ?? ''), key?.data ?? Buffer.alloc(0)]
    const head = Buffer.alloc(12)
    head.write('l', 0, 'latin1') // little-endian
    head.writeUInt16LE(11, 2)
    head.writeUInt16LE(word.length, 6)
    head.writeUInt16LE(data.length, 8)
    this.#socket.write(Buffer.concat([head, padded(word), padded(data)]))
    const answer = await wait<Buffer>('X server, greeting', { timeout: ANSWER_MS }, (resolve, reject) => {
      this.#began = resolve
      this.onGone = reject
      return () => void (this.onGone = undefined)
    })
    if (answer[0] !== 1) {
      const text = answer.subarray(8, 8 + answer[1]!).toString()
      throw new VmchannelError(
        'ERR_VMCHANNEL_PLATFORM',
        `the X server at DISPLAY=${this.#label} refuses us: ${text.trim() || 'no reason given'}`,
        { hint: 'set XAUTHORITY to the file with its key, or run this as the user of the desktop' },
      )
    }
    const screens = answer.length < 40 ? Infinity : 40 + 4 * Math.ceil(answer.readUInt16LE(24) / 4) + 8 * answer[29]!
    if (answer.length < screens + 4) throw this.fault('its greeting is too short')
    this.#idBase = answer.readUInt32LE(12)
    this.root = answer.readUInt32LE(screens)
  }

  #take(bytes: Buffer): void {
    this.#held.push(bytes)
    this.#heldLen += bytes.length
    if (!this.#yielding) this.#work()
  }

  #work(): void {
    for (;;) {
      if (this.#heldLen < (this.#began ? 8 : PACKET)) return
      if (this.#held[0]!.length < PACKET && this.#held.length > 1) this.#held = [Buffer.concat(this.#held)]
      const len = this.#packetLen(this.#held[0]!)
      if (len > EXTRA_MAX) return this.#end(this.fault(`it sent a packet of ${len} bytes`))
      if (this.#heldLen < len) return
      const all = this.#held.length === 1 ? this.#held[0]! : Buffer.concat(this.#held)
      this.#held = all.length > len ? [all.subarray(len)] : []
      this.#heldLen -= len
      const packet = all.subarray(0, len)
      this.#packet(packet)
      if (this.#gone) return
      if (packet[0] !== ANSWER) continue
      // Whoever waited for it goes on before an event that came behind it: that may be the consequence.
      this.#yielding = true
      setImmediate(() => {
        this.#yielding = false
        if (!this.#gone) this.#work()
      })
      return
    }
  }

  #packetLen(head: Buffer): number {
    if (this.#began) return 8 + 4 * head.readUInt16LE(6)
    const type = head[0]! & 0x7f
    return PACKET + (type === ANSWER || type === GENERIC_EVENT ? 4 * head.readUInt32LE(4) : 0)
  }

  #packet(packet: Buffer): void {
    if (this.#began) {
      const began = this.#began
      this.#began = undefined
      return began(packet)
    }
    const answer = packet[0]! <= ANSWER ? this.#answers.get(packet.readUInt16LE(2)) : undefined
    if (packet[0] === ANSWER) answer?.resolve(packet)
    // Mostly of windows that have gone meanwhile.
    else if (packet[0] === 0) answer?.reject(this.fault(`error ${packet[1]} to request ${packet[10]}`))
    else this.onEvent?.(packet)
  }

  #end(error: Error): void {
    if (this.#gone) return
    this.#gone = error
    this.#socket.destroy()
    for (const { reject } of this.#answers.values()) reject(error)
    this.onGone?.(error)
  }
}

function counted(name: string): Buffer {
  const len = Buffer.alloc(4)
  len.writeUInt16LE(name.length, 0)
  return Buffer.concat([len, padded(Buffer.from(name))])
}

export function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])
}

export function u32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, 4 * i)
  return bytes
}
