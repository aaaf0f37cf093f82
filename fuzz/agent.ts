/**
 * A guest agent that answers anything: JSON of every shape, in pieces, twice, to others, not at all. Each call gives
 * what its type says or fails with an error for people, never a TypeError; what is printed of it steers no terminal.
 */

import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { AgentChannel } from '../src/agent/channel.ts'
import { GuestAgent } from '../src/agent/guest-agent.ts'
import { VmchannelError } from '../src/errors.ts'
import { duplexPair } from '../test/support/duplex-pair.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const CALLS = 20
const TIMEOUT_MS = 15
const NAUGHTY = ['\u0000', '\u001b[2J', '\u009b31m', '\u202e', '\u2028', '\n', 'x'.repeat(3000)]
// oxlint-disable-next-line no-control-regex -- that is the point
const STEERS = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

/** What a good agent answers: what lies is made of it. */
const ANSWERS: Readonly<Record<string, unknown>> = {
  'guest-info': {
    version: '10.0',
    supported_commands: [{ name: 'guest-ping', enabled: true, 'success-response': true }],
  },
  'guest-get-osinfo': { id: 'debian', name: 'Debian', 'pretty-name': 'Debian 12', 'kernel-release': '6.1' },
  'guest-get-host-name': { 'host-name': 'g' },
  'guest-get-users': [{ user: 'root', 'login-time': 1.5 }],
  'guest-network-get-interfaces': [
    { name: 'lo', 'ip-addresses': [{ 'ip-address': '127.0.0.1', 'ip-address-type': 'ipv4', prefix: 8 }] },
  ],
  'guest-get-fsinfo': [{ name: 'sda1', mountpoint: '/', type: 'ext4', 'used-bytes': 1, 'total-bytes': 2, disk: [] }],
  'guest-exec': { pid: 7 },
  'guest-exec-status': { exited: true, exitcode: 0, 'out-data': 'aGk=', 'err-data': '' },
  'guest-file-open': 3,
  'guest-file-read': { count: 2, 'buf-b64': 'aGk=', eof: true },
  'guest-file-write': { count: 2, eof: false },
  'guest-fsfreeze-freeze': 1,
  'guest-fsfreeze-thaw': 1,
  'guest-fsfreeze-status': 'thawed',
}

function bent(r: Random, value: unknown, depth = 0): unknown {
  if (r.chance(depth === 0 ? 15 : 12)) return strange(r)
  if (Array.isArray(value))
    return [...value, ...(r.chance(20) ? [strange(r)] : [])].map((one) => bent(r, one, depth + 1))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(() => r.chance(93))
      .map(([key, one]) => [key, bent(r, one, depth + 1)]),
  )
}

function strange(r: Random): unknown {
  return r.pick<unknown>([null, 0, -1, 1.5, 1e300, '', r.pick(NAUGHTY), [], {}, true, [null], { a: null }, '123', [[]]])
}

/** The other end of the stream. */
class LyingAgent {
  readonly #r: Random
  readonly #stream: Duplex
  #text = ''

  constructor(stream: Duplex, r: Random) {
    this.#stream = stream
    this.#r = r
    stream.on('error', () => {}).on('data', (bytes: Buffer) => this.#take(bytes.toString('latin1')))
  }

  #take(text: string): void {
    this.#text += text
    for (let at = this.#text.indexOf('\n'); at >= 0; at = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, at).replaceAll('\u00ff', '')
      this.#text = this.#text.slice(at + 1)
      this.#answer(JSON.parse(line) as { execute: string; arguments: Record<string, unknown>; id?: number })
    }
  }

  #answer({
    execute,
    arguments: args,
    id,
  }: {
    execute: string
    arguments: Record<string, unknown>
    id?: number
  }): void {
    const r = this.#r
    if (execute === 'guest-sync-delimited')
      return this.#send(Buffer.from(`\u00ff{"return": ${String(args['id'])}}\n`, 'latin1'))
    if (r.below(200) === 1) return
    const good = ANSWERS[execute] ?? {}
    const lies = r.chance(80)
    const body = r.chance(88)
      ? { return: lies ? bent(r, good) : good }
      : {
          error: lies
            ? bent(r, { class: r.pick(['GenericError', 'CommandNotFound']), desc: r.pick(['no', ...NAUGHTY]) })
            : {},
        }
    const text = r.chance(3)
      ? r.pick(['{', 'null', '[]', '7', '""', '{}'])
      : JSON.stringify({ ...body, ...(r.chance(90) ? { id } : {}) })
    this.#send(Buffer.from(`${text}\n`))
    if (r.chance(5)) this.#send(Buffer.from(`${text}\n`))
  }

  #send(bytes: Buffer): void {
    if (this.#r.chance(85)) return void this.#stream.write(bytes)
    for (let at = 0; at < bytes.length; at += 7) this.#stream.write(bytes.subarray(at, at + 7))
  }
}

type Call = (agent: GuestAgent) => Promise<unknown>
const limits = { timeout: TIMEOUT_MS }

const CALLS_OF: readonly Call[] = [
  (agent) =>
    agent
      .info(limits)
      .then(({ version, commands }) => assert.deepEqual([typeof version, Array.isArray(commands)], ['string', true])),
  // As `vmchannel agent info` takes them apart.
  (agent) => agent.osInfo(limits).then((system) => typed('string', system['pretty-name'] ?? system.name)),
  (agent) => agent.hostName(limits).then((name) => typed('string', name)),
  (agent) => agent.users(limits).then((users) => users.forEach(({ user }) => typed('string', user))),
  (agent) =>
    agent
      .interfaces(limits)
      .then((all) =>
        all.flatMap((one) => one['ip-addresses'] ?? []).forEach((one) => typed('string', one['ip-address'])),
      ),
  (agent) => agent.fileSystems(limits).then((all) => all.forEach(({ mountpoint }) => typed('string', mountpoint))),
  (agent) =>
    agent.exec('true', [], limits).then(({ status, signal, stdout }) => {
      assert.ok(Buffer.isBuffer(stdout))
      for (const one of [status, signal]) assert.ok(one === null || Number.isSafeInteger(one), `status ${one}`)
    }),
  (agent) =>
    agent
      .get('/f', { via: 'commands', signal: AbortSignal.timeout(TIMEOUT_MS) })
      .then((bytes) => assert.ok(bytes.length <= 1 << 20)),
  (agent) => agent.put('hi', '/f', { via: 'commands', signal: AbortSignal.timeout(TIMEOUT_MS) }),
  (agent) => agent.put('hi', '/f', { via: 'commands', mode: '0644', signal: AbortSignal.timeout(TIMEOUT_MS) }),
  (agent) => agent.fsFreeze(undefined, limits).then((n) => typed('number', n)),
  (agent) => agent.fsThaw(limits).then((n) => typed('number', n)),
  (agent) => agent.fsStatus(limits).then((status) => assert.ok(status === 'thawed' || status === 'frozen')),
]

function typed(kind: 'string' | 'number', value: unknown): void {
  if (value !== undefined) assert.equal(typeof value, kind)
}

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const [guest, host] = duplexPair()
  const liar = new LyingAgent(guest, r)
  void liar
  const agent = new GuestAgent(await AgentChannel.open(host, { timeout: 5000 }))
  try {
    for (let i = 0; i < CALLS && !r.ended && !agent.closed; i++) {
      r.step()
      try {
        await r.pick(CALLS_OF)(agent)
      } catch (error) {
        if (!(error instanceof VmchannelError)) throw error
        assert.doesNotMatch(error.message, STEERS, 'a message steers the terminal')
        if (error.hint) assert.doesNotMatch(error.hint, STEERS)
      }
    }
  } finally {
    agent.close()
    guest.destroy()
  }
  return CALLS
}

export const AGENT: FuzzTarget = simple('agent', 'guest agents that answer anything', episode)
