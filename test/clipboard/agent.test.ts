/**
 * `vmchannel clipboard` between a desktop here and the real spice-vdagent, whose daemon has a socket for its port: no
 * machine, all programs stock. The same with a guest, on our device, is test/desktop/clipboard.desktop.ts.
 */
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ensureDesktopTools } from '../../lab/fetch/desktop-tools.ts'
import { Bench, collect, ROOT, until } from '../cli/run.ts'
import { sharesAClipboard, type Shared } from './checks.ts'
import { Desk, localShell } from './desk.ts'
import { LocalAgent, Processes } from './processes.ts'
import { PATIENCE, pastes, Sharing } from './sharing.ts'

const bench = new Bench()
let processes: Processes
let agent: LocalAgent

beforeAll(async () => {
  processes = new Processes(bench.folder, await ensureDesktopTools())
  agent = await LocalAgent.start(processes)
})
afterAll(async () => {
  await processes?.close()
  await bench.close()
})

describe('X11, with spice-vdagent', () => {
  let shared: Shared
  const running: Sharing[] = []
  beforeAll(async () => {
    const env = await processes.xServer()
    const hostFile = join(bench.folder, 'host.kept')
    shared = {
      guest: new Desk(localShell(agent.env), join(bench.folder, 'guest.kept')),
      host: new Desk(localShell(env), hostFile),
      hostFile,
      share: async (...args) => {
        const sharing = await Sharing.start(bench, ['--socket', agent.socket, ...args], env)
        running.push(sharing)
        return sharing
      },
      restartAgent: async () => {
        await agent.end()
        await agent.begin()
      },
    }
  })
  afterEach(async () => {
    for (const one of running.splice(0)) await one.end()
  })

  sharesAClipboard(() => shared)
})

it('examples/clipboard-sync.mjs', { timeout: PATIENCE }, async () => {
  const guest = new Desk(localShell(agent.env), join(bench.folder, 'guest.kept'))
  const child = bench.start([agent.socket], { program: join(ROOT, 'examples/clipboard-sync.mjs') })
  const ended = collect(child)
  let said = ''
  child.stdout!.on('data', (chunk: string) => (said += chunk))
  await until('it is ready', () => said.includes('the agent is there'), PATIENCE)
  await guest.copy('Grüße')
  await pastes(guest, 'the host has read: Grüße')
  child.kill('SIGINT')
  expect(await ended).toEqual({
    ...{ status: 0, signal: null, stderr: '' },
    stdout: 'the agent is there\ncopied in the guest: Grüße\n',
  })
})
