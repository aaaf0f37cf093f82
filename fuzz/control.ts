/**
 * A client of the control socket that says anything: lines that are no JSON, JSON that is no request, requests with any
 * parameters, too long, cut, many at once. Each line is answered or the connection ended; the device process lives, its
 * descriptors stay few, and the next client is served.
 */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ControlClient } from '../src/client/control-client.ts'
import { startDevice } from '../src/client/start.ts'
import { LINE_MAX } from '../src/daemon/protocol.ts'
import { Random } from './random.ts'
import type { FuzzSession, FuzzTarget } from './target.ts'

const LINES = 20
const VM = 'alpha'
const PORT = 'null,name=first'
/** Ports and connections that requests have left behind come and go; a leak would pass this soon. */
const FDS_MAX = 400
const METHODS = [
  'hello',
  'vm.list',
  'port.list',
  'port.add',
  'port.remove',
  'port.stats',
  'port.resize',
  'port.disconnect',
  'port.attach',
  'subscribe',
  'vm.add',
  'vm.remove',
  'shutdown2',
  '',
  'constructor',
  '__proto__',
  'toString',
]
const VALUES: unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e308,
  'null',
  'null,name=a',
  'attach,name=b',
  'nul',
  '',
  'x'.repeat(5000),
  [],
  {},
  { a: { b: [] } },
  'alpha',
  31,
  '\u0000',
]
const NAMES = ['vm', 'port', 'spec', 'cols', 'rows', 'events', '__proto__', 'id', 'constructor']

function line(r: Random): Buffer {
  const params: Record<string, unknown> = {}
  for (let i = r.below(4); i > 0; i--)
    Object.defineProperty(params, r.pick(NAMES), { value: r.pick(VALUES), enumerable: true, configurable: true })
  const request = {
    id: r.pick([1, 2, -1, 'x', null, 1e300, {}]),
    method: r.pick(METHODS),
    params: r.chance(85) ? params : r.pick(VALUES),
  }
  const text = r.chance(85)
    ? JSON.stringify(request)
    : r.pick(['{', '[]', '7', '"', '', '\u0000', '{"id":1}', '{"method":[]}', '[[[['.repeat(200)])
  const bytes = Buffer.from(r.chance(90) ? text : text.slice(0, r.below(text.length + 1)))
  if (r.chance(2)) return Buffer.alloc(LINE_MAX + 10, 'x')
  return Buffer.concat([bytes, Buffer.from(r.chance(95) ? '\n' : '')])
}

async function start(): Promise<FuzzSession> {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-fuzz-'))
  const device = await startDevice(
    {
      stateDir: join(folder, 'state'),
      vms: [{ name: VM, ports: [PORT] }],
      exitWith: 'parent',
      logLevel: 'error',
    },
    { stderr: 'ignore' },
  )
  return {
    async episode(seed) {
      const r = new Random(seed)
      const socket = createConnection(device.controlSocket)
      await once(socket, 'connect')
      socket.on('error', () => {})
      const closed = new Promise<void>((resolve) => void socket.on('close', () => resolve()).resume())
      for (let i = 0; i < LINES && !r.ended && !socket.destroyed; i++) {
        r.step()
        if (socket.write(line(r))) continue
        await Promise.race([closed, new Promise<void>((resolve) => void socket.once('drain', resolve))])
      }
      if (r.chance(50)) socket.end()
      else socket.destroy()
      await closed
      assert.equal(device.process.exitCode, null, 'the device process has ended')
      const client = await ControlClient.connect(device.controlSocket)
      try {
        await tidy(client)
      } finally {
        client.close()
      }
      const fds = readdirSync(`/proc/${device.pid}/fd`).length
      assert.ok(fds < FDS_MAX, `the device process has ${fds} descriptors`)
      return LINES
    },
    async close() {
      device.stdin.end()
      if (device.process.exitCode === null) await once(device.process, 'exit')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** As it was before the episode, whose requests may have added and removed VMs and ports. A request names its VM. */
async function tidy(client: ControlClient): Promise<void> {
  for (const { vm } of await client.request('vm.list', {})) if (vm !== VM) await client.request('vm.remove', { vm })
  const left = await client.request('vm.list', {})
  if (left.length === 0) await client.request('vm.add', { name: VM, ports: [PORT] })
  for (const { port, name } of await client.request('port.list', { vm: VM }))
    if (name !== 'first') await client.request('port.remove', { vm: VM, port })
  const names = (await client.request('port.list', { vm: VM })).map(({ name }) => name)
  assert.ok(names.every((name) => name === 'first') && names.length <= 1, `ports after an episode: ${names.join()}`)
  if (names.length === 0) await client.request('port.add', { vm: VM, spec: PORT })
}

export const CONTROL: FuzzTarget = { name: 'control', title: 'clients of the control socket that say anything', start }
