/** Agents that are not Debian's: one without the SELECTION capability, and one that wants the line ends of Windows. */
import { Duplex, duplexPair } from 'node:stream'
import { afterEach, describe, expect, it } from 'vitest'
import { MemoryClipboard } from '../../src/clipboard/memory.ts'
import { ClipboardSync, type ClipboardEvent } from '../../src/clipboard/sync.ts'
import {
  CAPABILITY,
  chunks,
  decodeCapabilities,
  decodeClipboard,
  encodeCapabilities,
  encodeGrab,
  encodeTyped,
  MESSAGE,
  MessageReader,
  type ClipboardMessage,
  type Dialect,
} from '../../src/clipboard/wire.ts'
import { until } from '../cli/run.ts'

const LIMIT = 1 << 20
const OLDEST = [CAPABILITY.byDemand]
const WINDOWS = [CAPABILITY.byDemand, CAPABILITY.selection, CAPABILITY.lineEndCrlf]

/** The guest's side: answers the question for capabilities, gives `content`, notes everything else. */
class ForeignAgent {
  readonly got: ClipboardMessage[] = []
  content: Buffer = Buffer.alloc(0)
  readonly #dialect: Dialect
  readonly #stream: Duplex

  constructor(stream: Duplex, bits: readonly number[]) {
    this.#stream = stream
    this.#dialect = { selection: bits.includes(CAPABILITY.selection), serial: bits.includes(CAPABILITY.grabSerial) }
    const reader = new MessageReader(LIMIT)
    stream.on('data', (bytes: Buffer) =>
      reader.push(bytes, (message) => {
        if (message.type === MESSAGE.capabilities) {
          if (decodeCapabilities(message.data).request) this.say(MESSAGE.capabilities, encodeCapabilities(false, bits))
          return
        }
        const said = decodeClipboard(this.#dialect, { ...message, data: Buffer.from(message.data) })
        if (!said) return
        this.got.push(said)
        if (said.what === 'request')
          this.say(MESSAGE.clipboard, encodeTyped(this.#dialect, said.selection, said.number), this.content)
      }),
    )
  }

  say(type: number, ...data: Uint8Array[]): void {
    for (const chunk of chunks(type, ...data)) this.#stream.write(chunk)
  }

  grab(): void {
    this.say(MESSAGE.grab, encodeGrab(this.#dialect, 'clipboard', 0, ['text/plain;charset=utf-8']))
  }

  /** What the host has. */
  async paste(): Promise<Buffer> {
    const from = this.got.length
    this.say(MESSAGE.request, encodeTyped(this.#dialect, 'clipboard', 1))
    const data = await until('the content', () => this.got.slice(from).find(({ what }) => what === 'data'))
    return (data as ClipboardMessage & { what: 'data' }).bytes
  }

  grabs(): string[] {
    return this.got.flatMap((one) => (one.what === 'grab' ? [one.selection] : []))
  }
}

const running: ClipboardSync[] = []
afterEach(async () => {
  for (const one of running.splice(0)) await one.close()
})

async function share(bits: readonly number[]) {
  const [ours, theirs] = duplexPair()
  const agent = new ForeignAgent(theirs, bits)
  const clipboard = new MemoryClipboard()
  const events: ClipboardEvent[] = []
  const sync = await ClipboardSync.start(async () => ours, {
    ...{ backend: clipboard, primary: true, limit: LIMIT, reconnect: 0, onEvent: (event) => events.push(event) },
  })
  running.push(sync)
  await sync.ready({ timeout: 10_000 })
  const fromGuest = async (bytes: Buffer): Promise<Buffer> => {
    agent.content = bytes
    const grabbed = new Promise((resolve) => clipboard.once('change', resolve))
    agent.grab()
    await grabbed
    return Buffer.from(await clipboard.read())
  }
  const fromHost = async (bytes: Buffer): Promise<Buffer> => {
    const before = agent.grabs().length
    clipboard.write({ 'text/plain;charset=utf-8': bytes })
    await until('a grab', () => agent.grabs().length > before)
    return agent.paste()
  }
  return { agent, clipboard, events, fromGuest, fromHost }
}

describe('without the SELECTION capability', () => {
  it('the clipboard goes both ways, byte by byte; PRIMARY is kept from the agent', async () => {
    const { agent, clipboard, events, fromGuest, fromHost } = await share(OLDEST)
    clipboard.write('middle button', 'primary')
    for (const bytes of [Buffer.from('a\0b\r\n😀'), Buffer.from([0xfc, 0x62, 0xf0, 0x9f])]) {
      expect(await fromGuest(bytes)).toEqual(bytes)
      expect(await fromHost(bytes)).toEqual(bytes)
    }
    expect(agent.grabs()).toEqual(['clipboard', 'clipboard'])
    expect(events.filter(({ event }) => event === 'refused')).toEqual([])
  })
})

describe('with the line ends of Windows', () => {
  it.each([
    ['text', 'a\nb\n', 'a\r\nb\r\n'],
    ['a lone CR', 'a\rb', 'a\rb'],
    ['a NUL', 'a\0\nb', 'a\0\r\nb'],
  ])('%s: LF here, CR LF there', async (_, here, there) => {
    const { fromGuest, fromHost } = await share(WINDOWS)
    expect((await fromHost(Buffer.from(here))).toString()).toBe(there)
    expect((await fromGuest(Buffer.from(there))).toString()).toBe(here)
  })

  it('what is no UTF-8 has its other bytes still', async () => {
    const { fromGuest, fromHost } = await share(WINDOWS)
    const [here, there] = [Buffer.from('\xfc\n\xff\xf0\x9f', 'latin1'), Buffer.from('\xfc\r\n\xff\xf0\x9f', 'latin1')]
    expect(await fromHost(here)).toEqual(there)
    expect(await fromGuest(there)).toEqual(here)
  })
})

it('nothing that was given comes back as a grab', async () => {
  const { agent, fromGuest, fromHost } = await share(WINDOWS)
  await fromGuest(Buffer.from('one'))
  expect(agent.grabs()).toEqual([])
  await fromHost(Buffer.from('two'))
  await fromGuest(Buffer.from('three'))
  expect(agent.grabs()).toEqual(['clipboard'])
})
