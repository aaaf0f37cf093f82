/** An agent for the client's tests: the guest's end of a stream, with the habits of the real one and worse ones. */
import { Duplex } from 'node:stream'

type Handler = (args: Record<string, unknown>, request: Record<string, unknown>) => unknown

export interface FakeOptions {
  commands?: Record<string, Handler>
  /** Sent before anything is read, as what an earlier connection left. */
  leftovers?: string
  /** An agent that does not know numbers of requests. */
  anonymous?: boolean
}

/** Returned by a handler: no answer. */
export const SILENT = Symbol('silent')
/** Returned by a handler: these bytes instead of an answer. */
export class Raw {
  readonly bytes: string
  constructor(bytes: string) {
    this.bytes = bytes
  }
}

export class FakeAgent {
  readonly stream: Duplex
  readonly requests: string[] = []
  #text = ''

  constructor({ commands = {}, leftovers = '', anonymous = false }: FakeOptions = {}) {
    const say = (text: string): void => void this.stream.push(Buffer.from(text, 'latin1'))
    this.stream = new Duplex({
      read() {},
      write: (chunk: Buffer, _encoding, done) => {
        this.#text += chunk.toString('latin1')
        // The byte resets the parser, and an error is the answer to whatever was there.
        if (this.#text.includes('\xff')) {
          this.#text = this.#text.slice(this.#text.lastIndexOf('\xff') + 1)
          say('{"error": {"class": "GenericError", "desc": "JSON parse error, stray \'\xff\'"}}\n')
        }
        const lines = this.#text.split('\n')
        this.#text = lines.pop()!
        for (const line of lines) this.#answer(JSON.parse(line) as Record<string, unknown>, commands, anonymous, say)
        done()
      },
    })
    if (leftovers !== '') say(leftovers)
  }

  #answer(
    request: Record<string, unknown>,
    commands: Record<string, Handler>,
    anonymous: boolean,
    say: (text: string) => void,
  ): void {
    const name = String(request['execute'])
    const args = request['arguments'] as Record<string, unknown>
    this.requests.push(name)
    const id = anonymous || request['id'] === undefined ? '' : `, "id": ${JSON.stringify(request['id'])}`
    if (name === 'guest-sync-delimited' && !commands[name]) return say(`\xff{"return": ${String(args['id'])}}\n`)
    const handler = commands[name]
    if (!handler)
      return say(`{"error": {"class": "CommandNotFound", "desc": "The command ${name} has not been found"}${id}}\n`)
    void Promise.resolve(handler(args, request)).then((value) => {
      if (value === SILENT) return
      if (value instanceof Raw) return say(value.bytes)
      if (value instanceof Error) return say(`{"error": {"class": "GenericError", "desc": "${value.message}"}${id}}\n`)
      say(`{"return": ${JSON.stringify(value)}${id}}\n`)
    })
  }
}
