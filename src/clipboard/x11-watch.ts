/**
 * Says when a selection of an X11 display gets another owner, which no clipboard tool does: a connection of our own to the
 * X server, with the few requests that takes (XFIXES, version 1, "SelectionNotify"). x11-auth.ts knows display and key.
 */

import { connect, type Socket } from 'node:net'
import { wait } from '../client/abort.ts'
import { VmchannelError } from '../errors.ts'
import type { Selection } from './wire.ts'
import { findKey, parseDisplay } from './x11-auth.ts'

const ANSWER_MS = 10_000
const PACKET = 32
/** The setup of a server with many screens has some kilobytes. */
const EXTRA_MAX = 256 << 10
const PRIMARY = 1 // the one atom with a fixed number
/** New owner, owner's window destroyed, owner's connection closed. */
const ALL_CHANGES = 7

export async function watchX11(
  env: NodeJS.ProcessEnv,
  selections: readonly Selection[],
  changed: (selection: Selection) => void,
  failed: (error: Error) => void,
): Promise<() => void> {
  const display = parseDisplay(env['DISPLAY'] ?? '')
  const server = await XServer.connect(env, display)
  try {
    const root = await server.setup(findKey(env, display))
    const fixes = await server.request(98, 0, name('XFIXES'))
    if (fixes[8] !== 1) throw server.fault('the X server has no XFIXES')
    const [major, first] = [fixes[9]!, fixes[10]!]
    await server.request(major, 0, u32(5, 0))
    const atoms = new Map<number, Selection>()
    for (const selection of selections) {
      const atom = selection === 'primary' ? PRIMARY : (await server.request(16, 0, name('CLIPBOARD'))).readUInt32LE(8)
      atoms.set(atom, selection)
      server.send(major, 2, u32(root, atom, ALL_CHANGES))
    }
    server.onEvent = (event) => {
      const selection = (event[0]! & 0x7f) === first ? atoms.get(event.readUInt32LE(12)) : undefined
      if (selection !== undefined) changed(selection)
    }
    server.onGone = failed
    return () => server.close()
  } catch (error) {
    server.close()
    throw error
  }
}

class XServer {
  readonly #socket: Socket
  readonly #label: string
  #held: Buffer = Buffer.alloc(0)
  #began = false
  #gone: Error | undefined
  #answer: { resolve: (packet: Buffer) => void; reject: (error: Error) => void } | undefined
  onEvent: ((event: Buffer) => void) | undefined
  onGone: ((error: Error) => void) | undefined

  static async connect(env: NodeJS.ProcessEnv, display: ReturnType<typeof parseDisplay>): Promise<XServer> {
    let why: Error | undefined
    for (const target of display.targets)
      try {
        const socket = await wait<Socket>('connecting to the X server', { timeout: ANSWER_MS }, (resolve, reject) => {
          const one = connect(target)
          one.once('connect', () => resolve(one)).once('error', reject)
          return () => one.off('error', reject).on('error', () => {})
        })
        return new XServer(socket, display.label)
      } catch (error) {
        why ??= error as Error
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

  /** The root window of the first screen. */
  async setup(key: { name: string; data: Buffer } | undefined): Promise<number> {
    const [word, data] = [Buffer.from(key?.name ?? ''), key?.data ?? Buffer.alloc(0)]
    const head = Buffer.alloc(12)
    head.write('l', 0, 'latin1') // little-endian
    head.writeUInt16LE(11, 2)
    head.writeUInt16LE(word.length, 6)
    head.writeUInt16LE(data.length, 8)
    this.#socket.write(Buffer.concat([head, padded(word), padded(data)]))
    const answer = await this.#wait('greeting')
    if (answer[0] !== 1) {
      const text = answer.subarray(8, 8 + answer[1]!).toString()
      throw new VmchannelError(
        'ERR_VMCHANNEL_PLATFORM',
        `the X server at DISPLAY=${this.#label} refuses us: ${text.trim() || 'no reason given'}`,
        { hint: 'set XAUTHORITY to the file with its key, or run this as the user of the desktop' },
      )
    }
    const screens = 40 + 4 * Math.ceil(answer.readUInt16LE(24) / 4) + 8 * answer[29]!
    if (answer.length < screens + 4) throw this.fault('its greeting is too short')
    return answer.readUInt32LE(screens)
  }

  send(major: number, minor: number, body: Buffer): void {
    const head = Buffer.alloc(4)
    head[0] = major
    head[1] = minor
    head.writeUInt16LE(1 + body.length / 4, 2)
    this.#socket.write(Buffer.concat([head, body]))
  }

  request(major: number, minor: number, body: Buffer): Promise<Buffer> {
    this.send(major, minor, body)
    return this.#wait(`request ${major}`)
  }

  close(): void {
    this.#gone ??= this.fault('closed')
    this.onGone = undefined
    this.#socket.destroy()
  }

  #wait(what: string): Promise<Buffer> {
    return wait<Buffer>(`X server, ${what}`, { timeout: ANSWER_MS }, (resolve, reject) => {
      this.#answer = { resolve, reject }
      if (this.#gone) reject(this.#gone)
      return () => void (this.#answer = undefined)
    })
  }

  #take(bytes: Buffer): void {
    this.#held = Buffer.concat([this.#held, bytes])
    for (;;) {
      if (this.#held.length < 8) return
      const len = this.#packetLen()
      if (len > EXTRA_MAX) return this.#end(this.fault(`it sent a packet of ${len} bytes`))
      if (this.#held.length < len) return
      const packet = this.#held.subarray(0, len)
      this.#held = this.#held.subarray(len)
      this.#packet(packet)
    }
  }

  #packetLen(): number {
    if (!this.#began) return 8 + 4 * this.#held.readUInt16LE(6)
    const type = this.#held[0]! & 0x7f
    return PACKET + (type === 1 || type === 35 ? 4 * this.#held.readUInt32LE(4) : 0)
  }

  #packet(packet: Buffer): void {
    const answer = this.#answer
    if (!this.#began) {
      this.#began = true
      answer?.resolve(packet)
    } else if (packet[0] === 1) answer?.resolve(packet)
    else if (packet[0] === 0) answer?.reject(this.fault(`error ${packet[1]} to request ${packet[10]}`))
    else this.onEvent?.(packet)
  }

  #end(error: Error): void {
    if (this.#gone) return
    this.#gone = error
    this.#socket.destroy()
    this.#answer?.reject(error)
    this.onGone?.(error)
  }
}

function name(text: string): Buffer {
  const bytes = Buffer.from(text)
  const head = Buffer.alloc(4)
  head.writeUInt16LE(bytes.length, 0)
  return Buffer.concat([head, padded(bytes)])
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])
}

function u32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value, 4 * i)
  return bytes
}
