/**
 * A guest that answers with anything at all: what comes of it is a result of the right shape or an error that says so.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { connectAgent } from '../../src/agent/connect.ts'
import type { GuestAgent } from '../../src/agent/guest-agent.ts'
import { agentText } from '../../src/cli/agent.ts'
import { exitStatus } from '../../src/cli/agent-exec.ts'
import { VmchannelError } from '../../src/errors.ts'
import { FakeAgent, Raw } from './fake-agent.ts'

/** Where numbers, lists and null stand in the place of what the schema says. */
const odd = fc.oneof(
  fc.constantFrom(null, 0, -1, 1.5, 1e300, 2 ** 53, 2 ** 32, 255, 256, '', 'x', true, false, [], {}, [null], [[]]),
  fc.jsonValue({ maxDepth: 3 }),
)
const record = (names: readonly string[]) =>
  fc.record(Object.fromEntries(names.map((name) => [name, odd])), { requiredKeys: [] })

/** Answers that are nearly right, and any others. */
const NEARLY: Record<string, fc.Arbitrary<unknown>> = {
  'guest-info': record(['version', 'supported_commands']),
  'guest-get-osinfo': record(['id', 'name', 'pretty-name', 'kernel-release']),
  'guest-get-host-name': record(['host-name']),
  'guest-get-users': fc.array(fc.oneof(odd, record(['user', 'login-time', 'domain']))),
  'guest-network-get-interfaces': fc.array(
    fc.oneof(
      odd.map((one) => ({ name: 'lo', 'ip-addresses': one })),
      record(['name', 'hardware-address', 'ip-addresses']),
      record(['ip-address', 'ip-address-type', 'prefix']).map((one) => ({ name: 'lo', 'ip-addresses': [one] })),
    ),
  ),
  'guest-get-fsinfo': fc.array(fc.oneof(odd, record(['name', 'mountpoint', 'type', 'used-bytes']))),
  'guest-exec': fc.oneof(record(['pid']), fc.constant({ pid: 7 })),
  'guest-exec-status': fc.oneof(
    record(['exitcode', 'signal', 'out-data', 'err-data', 'out-truncated']).map((fields) => ({
      exited: true,
      ...fields,
    })),
    fc.record({ exited: fc.constant(true), exitcode: fc.oneof(fc.double(), fc.integer(), odd) }),
    fc.record({ exited: fc.constant(true), signal: fc.oneof(fc.double(), fc.integer(), odd) }),
  ),
  'guest-file-open': odd,
  'guest-file-read': record(['buf-b64', 'eof', 'count']),
  'guest-file-write': record(['count', 'eof']),
  'guest-file-close': odd,
  'guest-fsfreeze-status': fc.oneof(odd, fc.constant('thawed')),
  'guest-fsfreeze-freeze': odd,
  'guest-fsfreeze-thaw': odd,
  'guest-ping': odd,
  'guest-set-time': odd,
}
const answers = fc.record(
  Object.fromEntries(
    Object.entries(NEARLY).map(([name, nearly]) => [
      name,
      fc.oneof(
        { weight: 4, arbitrary: nearly.map((value) => ({ return: value })) },
        { weight: 1, arbitrary: odd.map((value) => ({ return: value })) },
        { weight: 1, arbitrary: fc.oneof(odd, record(['class', 'desc'])).map((error) => ({ error })) },
      ),
    ]),
  ),
)

/** All that the client can be asked, and what a right result is. */
const CALLS: readonly [string, (agent: GuestAgent) => Promise<unknown>][] = [
  ['ping', (agent) => agent.ping()],
  ['info', (agent) => agent.info()],
  ['osInfo', async (agent) => void (await agent.osInfo())['pretty-name']?.length.toFixed()],
  ['hostName', async (agent) => void (await agent.hostName()).length.toFixed()],
  ['users', async (agent) => void (await agent.users()).map((one) => [one.user.length, one['login-time'].toFixed()])],
  [
    'interfaces',
    async (agent) =>
      void (await agent.interfaces()).map((one) => one['ip-addresses']?.map((ip) => ip['ip-address'].length.toFixed())),
  ],
  ['fileSystems', async (agent) => void (await agent.fileSystems()).map((one) => one.mountpoint.length.toFixed())],
  ['text', (agent) => agentText(agent, {}, false)],
  ['json', (agent) => agentText(agent, {}, true)],
  [
    'exec',
    async (agent) => {
      const result = await agent.exec('x')
      const status = exitStatus(result)
      if (!Number.isInteger(status) || status < 0 || status > 255) throw new TypeError(`status ${status}`)
      if (result.status !== 0 && status === 0) throw new TypeError(`${result.status} became a success`)
    },
  ],
  ['get', (agent) => agent.get('/x', { maxSize: 1 << 20 })],
  ['put', (agent) => agent.put('abc', '/x', { mode: '0644' })],
  ['fsFreeze', (agent) => agent.fsFreeze()],
  ['fsThaw', (agent) => agent.fsThaw()],
  ['fsStatus', (agent) => agent.fsStatus()],
  ['setTime', (agent) => agent.setTime()],
]

describe('answers of a hostile guest', () => {
  it.each(CALLS)('%s: a result, or an error of this house', async (_, call) => {
    await fc.assert(
      fc.asyncProperty(answers, async (given) => {
        let asked = 0
        const commands = Object.fromEntries(
          Object.entries(given).map(([name, answer]) => [
            name,
            // One that never says that a file or a program has ended is asked for ever, which is no fault of its shape.
            (__: unknown, { id }: Record<string, unknown>) =>
              ++asked > 30 ? new Error('enough') : new Raw(`${JSON.stringify({ ...answer, id })}\n`),
          ]),
        )
        const agent = await connectAgent({ stream: new FakeAgent({ commands }).stream, timeout: 5000 })
        try {
          await call(agent)
        } catch (error) {
          if (!(error instanceof VmchannelError)) throw error
          expect(error.code).toMatch(/_(AGENT|NOT_FOUND)$/)
        } finally {
          agent.close()
        }
      }),
      { numRuns: 100 },
    )
  })

  it('1e400, which JSON has and numbers do not', async () => {
    const commands = {
      'guest-exec': () => ({ pid: 3 }),
      'guest-exec-status': (_: unknown, { id }: Record<string, unknown>) =>
        new Raw(`{"return":{"exited":true,"exitcode":1e400},"id":${String(id)}}\n`),
    }
    const agent = await connectAgent({ stream: new FakeAgent({ commands }).stream })
    await expect(agent.exec('x')).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_AGENT' })
  })

  it('exit statuses: 8 bits of a process, or a failure', () => {
    const of = (status: number | null, signal: number | null = null): number => exitStatus({ status, signal })
    expect([of(0), of(1), of(255), of(256), of(-1), of(0xc0000005)]).toEqual([0, 1, 255, 255, 255, 255])
    expect([of(null, 9), of(null, 127), of(null, 0xc0000005)]).toEqual([137, 255, 255])
  })

  it('a long line in pieces of one byte takes memory for its bytes, not for its pieces', async () => {
    const fake = new FakeAgent()
    const agent = await connectAgent({ stream: fake.stream })
    const piece = Buffer.from('x')
    const before = process.memoryUsage()
    for (let i = 0; i < 3_000_000; i++) fake.stream.emit('data', piece)
    const after = process.memoryUsage()
    // Kept as pieces they were more than 300 MB.
    const grown = after.heapUsed + after.external - before.heapUsed - before.external
    expect(grown).toBeLessThan(64 << 20)
    agent.close()
  })

  it('an answer of millions of empty lists ends the connection', async () => {
    const fake = new FakeAgent({
      commands: { 'guest-ping': () => new Raw(`{"return":[${'[],'.repeat(1 << 20)}[]]}\n`) },
    })
    const agent = await connectAgent({ stream: fake.stream })
    await expect(agent.ping()).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_AGENT',
      message: expect.stringMatching(/more than \d+ values/),
    })
  })
})
