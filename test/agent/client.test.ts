/** The client of the guest agent against one that does as it pleases. */
import { describe, expect, it } from 'vitest'
import { connectAgent } from '../../src/agent/connect.ts'
import { FakeAgent, Raw, SILENT, type FakeOptions } from './fake-agent.ts'

async function open(options: FakeOptions = {}) {
  const fake = new FakeAgent({ ...options, commands: { 'guest-ping': () => ({}), ...options.commands } })
  return { fake, agent: await connectAgent({ stream: fake.stream, timeout: 5000 }) }
}

const failure = (code: string, text: RegExp) => expect.objectContaining({ code, message: expect.stringMatching(text) })
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

describe('the greeting', () => {
  it('goes over what an earlier connection left, half lines and its sync too', async () => {
    const leftovers = '7}}\n{"return": {}}\n\xff{"return": 12}\n{"return": {"pid": 4}, "id": 1}\nno json\n'
    const { agent } = await open({ leftovers })
    await agent.ping()
    agent.close()
  })

  it('waits for an agent, and no longer than it may', async () => {
    const fake = new FakeAgent({ commands: { 'guest-sync-delimited': () => SILENT } })
    await expect(connectAgent({ stream: fake.stream, timeout: 50 })).rejects.toEqual(
      failure('ERR_VMCHANNEL_TIMEOUT', /no guest agent answers on the stream within 50 ms/),
    )
    expect(fake.stream.destroyed).toBe(true)
  })

  it('ends by a signal, and when the port goes', async () => {
    const mute = () => new FakeAgent({ commands: { 'guest-sync-delimited': () => SILENT } }).stream
    const signal = AbortSignal.timeout(20)
    await expect(connectAgent({ stream: mute(), signal })).rejects.toEqual(failure('ERR_VMCHANNEL_TIMEOUT', /./))
    const stream = mute()
    setTimeout(() => stream.destroy(), 20)
    await expect(connectAgent({ stream })).rejects.toEqual(failure('ERR_VMCHANNEL_CLOSED', /port .* was closed/))
  })
})

describe('requests', () => {
  it('one at a time, answered in order', async () => {
    let now = 0
    let most = 0
    const slow = async ({ n }: Record<string, unknown>) => {
      most = Math.max(most, ++now)
      await wait(5)
      now--
      return n
    }
    const { agent } = await open({ commands: { slow } })
    expect(await Promise.all([1, 2, 3, 4].map((n) => agent.call('slow', { n })))).toEqual([1, 2, 3, 4])
    expect(most).toBe(1)
  })

  it('after one that was given up: greets again, drops its late answer', async () => {
    let late: ((value: unknown) => void) | undefined
    const hang = () => new Promise((resolve) => (late = resolve))
    const { agent, fake } = await open({ commands: { hang, five: () => 5 } })
    await expect(agent.call('hang', {}, { timeout: 20 })).rejects.toEqual(
      failure('ERR_VMCHANNEL_TIMEOUT', /guest agent, hang: not within 20 ms/),
    )
    setTimeout(() => late!({ much: 'too late' }), 20)
    expect(await agent.call('five')).toBe(5)
    expect(fake.requests.slice(-2)).toEqual(['guest-sync-delimited', 'five'])
    await wait(40)
    expect(await agent.call('five')).toBe(5)
  })

  it('one that waits for its turn can be given up without a trace', async () => {
    const { agent, fake } = await open({ commands: { hang: () => wait(60).then(() => 1), never: () => 2 } })
    const first = agent.call('hang')
    await expect(agent.call('never', {}, { signal: AbortSignal.timeout(10) })).rejects.toThrow(/never/)
    expect(await first).toBe(1)
    expect(fake.requests).not.toContain('never')
  })

  it('an agent that repeats no numbers is understood', async () => {
    const { agent } = await open({ anonymous: true, commands: { five: () => 5 } })
    expect(await agent.call('five')).toBe(5)
  })

  it('answers to nobody, to others and no JSON are dropped', async () => {
    const noise = '{"return": 1, "id": 99}\n[]\nnull\n{"ret\n'
    const { agent } = await open({
      commands: { five: (_, { id }) => new Raw(`${noise}{"return": 5, "id": ${String(id)}}\n${noise}`) },
    })
    expect(await agent.call('five')).toBe(5)
    expect(await agent.call('five')).toBe(5)
  })

  it('no more than 64 wait', async () => {
    const { agent } = await open({ commands: { hang: () => SILENT } })
    const waiting = Array.from({ length: 65 }, () => agent.call('hang').catch((error: unknown) => error))
    await expect(agent.call('hang')).rejects.toEqual(failure('ERR_VMCHANNEL_IN_USE', /64 requests wait/))
    agent.close()
    for (const error of await Promise.all(waiting)) expect(error).toEqual(failure('ERR_VMCHANNEL_CLOSED', /closed/))
  })

  it('a line without an end closes the connection', async () => {
    const flood = () => {
      for (let n = 0; n < 50; n++) fake.stream.push(Buffer.alloc(1 << 20, 0x20))
      return SILENT
    }
    const { agent, fake } = await open({ commands: { flood } })
    await expect(agent.call('flood')).rejects.toEqual(failure('ERR_VMCHANNEL_AGENT', /a line of more than \d+ bytes/))
    expect(agent.closed).toBe(true)
  })

  it('the port going away fails what waits, and says so once', async () => {
    const { agent, fake } = await open({ commands: { hang: () => SILENT } })
    let closed = 0
    agent.onClose(() => closed++)
    setTimeout(() => fake.stream.push(null), 10)
    await expect(agent.call('hang')).rejects.toEqual(failure('ERR_VMCHANNEL_CLOSED', /closed/))
    await expect(agent.ping()).rejects.toEqual(failure('ERR_VMCHANNEL_CLOSED', /closed/))
    expect(closed).toBe(1)
  })
})

describe('refusals', () => {
  const refused = (desc: string, kind: string) => async (): Promise<unknown> => {
    const answer = (_: unknown, { id }: Record<string, unknown>) =>
      new Raw(`${JSON.stringify({ error: { class: kind, desc }, id })}\n`)
    const { agent } = await open({ commands: { 'guest-get-host-name': answer } })
    return agent.hostName().catch((error: unknown) => error)
  }
  it.each([
    [
      'switched off',
      'Command guest-get-host-name has been disabled',
      'CommandNotFound',
      'AGENT',
      /switched off/,
      /allow-rpcs/,
    ],
    [
      'unknown',
      'The command guest-get-host-name has not been found',
      'CommandNotFound',
      'AGENT',
      /does not know/,
      /info/,
    ],
    [
      'no file',
      "failed to open file '/x' (mode: 'r'): No such file or directory",
      'GenericError',
      'NOT_FOUND',
      /No such/,
      /^$/,
    ],
    ['control characters', 'bad\u001b[31m\nthing', 'GenericError', 'AGENT', /: bad\\x1b\[31m thing$/, /^$/],
  ])('%s', async (_, desc, kind, code, text, hint) => {
    const error = (await refused(desc, kind)()) as { hint?: string }
    expect(error).toEqual(failure(`ERR_VMCHANNEL_${code}`, text))
    expect(error.hint ?? '').toMatch(hint)
  })

  it.each([
    ['guest-exec', [{}, { pid: 'x' }, null, [], 7]],
    ['guest-exec-status', [{}, { exited: 1 }, { exited: true }, { exited: true, exitcode: '0' }]],
  ])('%s: an answer that makes no sense', async (name, answers) => {
    for (const answer of answers) {
      const commands = { 'guest-exec': () => ({ pid: 3 }), 'guest-exec-status': () => SILENT, [name]: () => answer }
      const { agent } = await open({ commands })
      await expect(agent.exec('x')).rejects.toEqual(failure('ERR_VMCHANNEL_AGENT', /makes no sense/))
    }
  })

  it('a file write that takes nothing, or more than there was', async () => {
    for (const count of [0, 4, -1]) {
      const commands = {
        'guest-file-open': () => 9,
        'guest-file-write': () => ({ count, eof: false }),
        'guest-file-close': () => ({}),
      }
      const { agent, fake } = await open({ commands })
      await expect(agent.put('abc', '/f')).rejects.toEqual(failure('ERR_VMCHANNEL_AGENT', /makes no sense/))
      expect(fake.requests.at(-1)).toBe('guest-file-close')
    }
  })

  it('what is disabled while file systems are frozen says so; a freeze of others is left alone', async () => {
    const off = { class: 'CommandNotFound', desc: 'Command x has been disabled: the command is not allowed' }
    const refuse = (_: unknown, { id }: Record<string, unknown>) => new Raw(`${JSON.stringify({ error: off, id })}\n`)
    let status = 'frozen'
    const commands = { 'guest-get-host-name': refuse, 'guest-fsfreeze-status': () => status }
    const { agent, fake } = await open({ commands })
    await expect(agent.hostName()).rejects.toMatchObject({ hint: expect.stringContaining('fsthaw') })
    await expect(agent.fsFreeze()).rejects.toMatchObject({ hint: expect.stringContaining('fsthaw') })
    expect(fake.requests).not.toContain('guest-fsfreeze-thaw')
    status = 'thawed'
    await expect(agent.hostName()).rejects.toMatchObject({ hint: expect.stringContaining('--block-rpcs') })
  })

  it('info: commands sorted, each with its name and whether it is enabled', async () => {
    const one = (name: string, enabled: boolean) => ({ name, enabled, 'success-response': true })
    const answer = { version: '10.0', supported_commands: [one('guest-sync', true), one('guest-exec', false)] }
    const { agent } = await open({ commands: { 'guest-info': () => answer } })
    expect(await agent.info()).toEqual({
      version: '10.0',
      commands: [
        { name: 'guest-exec', enabled: false },
        { name: 'guest-sync', enabled: true },
      ],
    })
  })

  it('a freeze that fails is thawed', async () => {
    const commands = {
      'guest-fsfreeze-status': () => 'thawed',
      'guest-fsfreeze-freeze': () => new Error('no'),
      'guest-fsfreeze-thaw': () => 1,
    }
    const { agent, fake } = await open({ commands })
    await expect(agent.fsFreeze()).rejects.toThrow('no')
    expect(fake.requests.at(-1)).toBe('guest-fsfreeze-thaw')
  })
})

describe('programs', () => {
  it('one that nobody waits for any more is killed', async () => {
    const started: unknown[] = []
    let killed = false
    const commands = {
      'guest-exec': (args: Record<string, unknown>) => {
        started.push(args['arg'])
        if (started.length > 1) killed = true
        return { pid: started.length }
      },
      'guest-exec-status': () => (killed ? { exited: true, signal: 9 } : { exited: false }),
    }
    const { agent } = await open({ commands })
    await expect(agent.exec('sleep', ['9'], { timeout: 40 })).rejects.toEqual(failure('ERR_VMCHANNEL_TIMEOUT', /sleep/))
    await agent.settled(5000)
    expect(started).toEqual([['9'], ['-c', 'kill -9 "$1"', 'sh', '1']])
  })

  it('input beyond the limit is not sent', async () => {
    const { agent, fake } = await open()
    const input = Buffer.alloc((8 << 20) + 1)
    await expect(agent.exec('cat', [], { input })).rejects.toEqual(failure('ERR_VMCHANNEL_USAGE', /input: 8388609/))
    expect(fake.requests).not.toContain('guest-exec')
  })
})
