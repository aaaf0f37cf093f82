/**
 * Reads what another program of an X11 display has copied: asks for it in one of its types, takes it from a property of our
 * window, in parts (INCR) where it is large. Used by x11-clipboard.ts.
 */

import { VmchannelError } from '../errors.ts'
import { MIME_TYPES, type MimeType } from './wire.ts'
import { TEXT, type TypeAtoms } from './x11-atoms.ts'
import { EVENT, REQUEST } from './x11-numbers.ts'
import { PROPERTY_PART, u32, type XServer } from './x11-server.ts'

/** Both are waited for from one part of a content to the next: the program that owns it may be stopped. */
const ANSWER_MS = 5000
/** Each has a property of its own, so that an answer that comes late is not taken for another one's. */
const AT_ONCE = 16
const LIST_MAX = 64 << 10

interface Reading {
  property: number
  selection: number
  target: number
  max: number
  parts: Buffer[]
  len: number
  incremental: boolean
  timer: NodeJS.Timeout
  resolve: (bytes: Buffer) => void
  reject: (error: Error) => void
}

export class X11Reader {
  readonly #server: XServer
  readonly #window: number
  readonly #types: TypeAtoms
  readonly #limit: number
  /** Names of texts that the owner has, by selection: what `read` asks for. */
  readonly #text = new Map<number, number>()
  #properties: number[] = []
  readonly #readings = new Map<number, Reading>()

  constructor(server: XServer, window: number, types: TypeAtoms, limit: number) {
    this.#server = server
    this.#window = window
    this.#types = types
    this.#limit = limit
  }

  async prepare(): Promise<void> {
    for (let n = 0; n < AT_ONCE; n++) this.#properties.push(await this.#server.atom(`VMCHANNEL_${n}`))
  }

  /** Types of what is there. */
  async list(selection: number): Promise<MimeType[]> {
    const bytes = await this.#convert(selection, this.#types.targets, LIST_MAX)
    const offered = new Set<number>()
    for (let at = 0; at + 4 <= bytes.length; at += 4) offered.add(bytes.readUInt32LE(at))
    const text = this.#types.best(TEXT, offered)
    if (text !== undefined) this.#text.set(selection, text)
    return MIME_TYPES.filter((type) => this.#types.best(type, offered) !== undefined)
  }

  async read(selection: number, type: MimeType): Promise<Buffer> {
    const target = type === TEXT ? (this.#text.get(selection) ?? this.#types.utf8) : this.#types.names(type)[0]!
    const bytes = await this.#convert(selection, target, this.#limit)
    return target === this.#types.string ? Buffer.from(bytes.toString('latin1')) : bytes
  }

  /** Whether the event was for us. */
  take(event: Buffer): boolean {
    const code = event[0]! & 0x7f
    if (code === EVENT.selectionNotify && event.readUInt32LE(8) === this.#window) {
      this.#converted(event.readUInt32LE(12), event.readUInt32LE(16), event.readUInt32LE(20))
      return true
    }
    if (code !== EVENT.propertyNotify || event.readUInt32LE(4) !== this.#window) return false
    const reading = this.#readings.get(event.readUInt32LE(8))
    if (reading?.incremental && event[16] === 0) void this.#fetch(reading)
    return true
  }

  #convert(selection: number, target: number, max: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const property = this.#properties.shift()
      if (property === undefined) return reject(refusal('too many programs that do not answer'))
      const timer = setTimeout(() => this.#end(reading, refusal('its owner does not answer')), ANSWER_MS)
      const reading: Reading = {
        ...{ property, selection, target, max, timer, resolve, reject },
        ...{ parts: [], len: 0, incremental: false },
      }
      this.#readings.set(property, reading)
      this.#server.send(REQUEST.convertSelection, 0, u32(this.#window, selection, target, property, 0))
    })
  }

  #converted(selection: number, target: number, property: number): void {
    if (property !== 0) {
      const reading = this.#readings.get(property)
      if (reading && !reading.incremental) void this.#fetch(reading)
      return
    }
    // A refusal does not name the property.
    const refused = [...this.#readings.values()].find((one) => one.selection === selection && one.target === target)
    if (refused) this.#end(refused, refusal('its owner does not give it'))
  }

  /** All of the property, and what comes next where that was a part. */
  async #fetch(reading: Reading): Promise<void> {
    reading.timer.refresh()
    try {
      let len = 0
      for (let offset = 0, left = 1; left > 0;) {
        const words = u32(this.#window, reading.property, 0, offset, PROPERTY_PART / 4)
        const answer = await this.#server.request(REQUEST.getProperty, 1, words)
        if (this.#readings.get(reading.property) !== reading) return
        if (answer.readUInt32LE(8) === this.#types.incr) return void (reading.incremental = true)
        left = answer.readUInt32LE(12)
        const part = answer.subarray(32, 32 + Math.min(answer.readUInt32LE(16) * (answer[1]! / 8), PROPERTY_PART))
        if (part.length === 0 && left > 0) throw refusal('it gives nothing')
        offset += part.length / 4
        len += part.length
        reading.len += part.length
        // The rest is taken from its owner's hands, and thrown away.
        if (reading.len <= reading.max) reading.parts.push(part)
        else reading.parts = []
        reading.timer.refresh()
      }
      if (reading.incremental && len > 0) return
      this.#end(reading, reading.len > reading.max ? refusal(`more than the limit of ${reading.max} bytes`) : undefined)
    } catch (error) {
      this.#end(reading, error as Error)
    }
  }

  #end(reading: Reading, error?: Error): void {
    if (this.#readings.get(reading.property) !== reading) return
    clearTimeout(reading.timer)
    this.#readings.delete(reading.property)
    this.#properties.push(reading.property)
    if (error) reading.reject(error)
    else reading.resolve(Buffer.concat(reading.parts))
  }
}

function refusal(why: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_CLIPBOARD', `the clipboard here: ${why}`)
}
