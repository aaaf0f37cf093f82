/** The greeting of an agent that did not hear the first one, heard it late, or is started anew: a pretended clock. */
import { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { connectAgent } from '../../src/agent/connect.ts'

/** An agent that answers when the test says so. */
class LateAgent {
  readonly stream: Duplex
  /** Requests that the guest has got, in order: `sync ID` or `NAME ID`. */
  readonly got: string[] = []
  /** Nobody takes what is sent. */
  blocked = false
  /** What is sent is read by somebody who is no agent. */
  deaf = false
  #text = ''
  #resume: (() => void) | undefined

  constructor() {
    this.stream = new Duplex({
      read() {},
      write: (chunk: Buffer, _encoding, done) => {
        if (this.blocked) this.#resume = done
        else done()
        if (this.deaf) return
        this.#text += chunk.toString('latin1').replaceAll('\xff', '')
        const lines = this.#text.split('\n')
        this.#text = lines.pop()!
        for (const line of lines) {
          const { execute, arguments: args, id } = JSON.parse(line) as Record<string, unknown>
          const sync = execute === 'guest-sync-delimited'
          this.got.push(sync ? `sync ${String((args as { id: number }).id)}` : `${String(execute)} ${String(id)}`)
        }
      },
    })
  }

  unblock(): void {
    this.blocked = false
    this.#resume?.()
  }

  /** Answers the first that was not answered, with the error that the byte before a sync request brings. */
  answer(): void {
    const [name, id] = this.got.shift()!.split(' ')
    if (name === 'sync') {
      this.say('{"error": {"class": "GenericError", "desc": "JSON parse error, stray byte"}}\n')
      this.say(`\xff{"return": ${id}}\n`)
    } else this.say(`{"return": {}, "id": ${id}}\n`)
  }

  say(text: string): void {
    this.stream.push(Buffer.from(text, 'latin1'))
  }
}

const turn = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => process.nextTick(resolve))
}
const pass = async (ms: number): Promise<void> => {
  await vi.advanceTimersByTimeAsync(ms)
  await turn()
}

describe('the greeting', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] }))
  afterEach(() => void vi.useRealTimers())

  it('is repeated with another number while the port leads to somebody else', async () => {
    const agent = new LateAgent()
    agent.deaf = true
    const connecting = connectAgent({ stream: agent.stream, timeout: 60_000 })
    await pass(30_000)
    agent.deaf = false
    await pass(1500)
    expect(new Set(agent.got).size).toBe(agent.got.length)
    while (agent.got.length > 0) agent.answer()
    const client = await connecting
    const pinged = client.ping()
    await turn()
    agent.answer()
    await pinged
    client.close()
  })

  it('an answer to an earlier one is none: what follows it on the way would be taken for the answer to a request', async () => {
    const agent = new LateAgent()
    const connecting = connectAgent({ stream: agent.stream, timeout: 60_000 })
    await pass(3500)
    expect(agent.got).toHaveLength(4)
    let connected = false
    void connecting.then(() => (connected = true))
    for (let i = 0; i < 3; i++) agent.answer()
    await turn()
    expect(connected).toBe(false)
    agent.answer()
    const client = await connecting
    // Nothing of the greeting is left to come: this is the answer.
    const pinged = client.ping()
    await turn()
    expect(agent.got).toEqual(['guest-ping 1'])
    agent.answer()
    await pinged
    client.close()
  })

  it('an agent that takes longer for each answer than we wait is met all the same', async () => {
    const agent = new LateAgent()
    const state = { connected: false }
    const connecting = connectAgent({ stream: agent.stream, timeout: 120_000 }).then((client) => {
      state.connected = true
      return client
    })
    // Each answer 3.1 s after the one before.
    for (let i = 0; i < 30 && !state.connected; i++) {
      await pass(3100)
      if (agent.got.length > 0) agent.answer()
      await turn()
    }
    expect(state.connected).toBe(true)
    ;(await connecting).close()
  })

  it('nothing is piled up before a guest that takes nothing', async () => {
    const agent = new LateAgent()
    agent.blocked = true
    const connecting = connectAgent({ stream: agent.stream, timeout: 120_000 })
    await pass(100_000)
    expect(agent.stream.writableLength).toBeLessThan(200)
    agent.unblock()
    await pass(2000)
    while (agent.got.length > 0) agent.answer()
    ;(await connecting).close()
  })

  it('a request that was lost in a restart fails alone: the next one is answered', async () => {
    const agent = new LateAgent()
    const connecting = connectAgent({ stream: agent.stream })
    await turn()
    agent.answer()
    const client = await connecting
    const lost = client.ping({ timeout: 2000 }).catch((error: unknown) => error)
    await turn()
    agent.got.length = 0 // the agent that got it has died
    agent.deaf = true
    await pass(2000)
    expect(await lost).toMatchObject({ code: 'ERR_VMCHANNEL_TIMEOUT' })
    const next = client.ping({ timeout: 20_000 })
    await pass(5000) // its greeting goes to nobody, five times
    agent.deaf = false
    await pass(1000)
    expect(agent.got).toHaveLength(1)
    agent.answer()
    await turn()
    agent.answer()
    await next
    client.close()
  })

  it('no timer is left', async () => {
    const agent = new LateAgent()
    const connecting = connectAgent({ stream: agent.stream, timeout: 5000 }).catch((error: unknown) => error)
    await pass(6000)
    expect(await connecting).toMatchObject({ code: 'ERR_VMCHANNEL_TIMEOUT' })
    expect(vi.getTimerCount()).toBe(0)
  })
})
