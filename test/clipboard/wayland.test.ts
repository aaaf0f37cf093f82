/** The clipboard of a Wayland compositor with wl-clipboard, and of an X server with its tools; spice-vdagent as it is. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ensureDesktopTools } from '../../lab/fetch/desktop-tools.ts'
import { Bench, until } from '../cli/run.ts'
import { keeps, PNG } from './checks.ts'
import { checksum, Desk, localShell } from './desk.ts'
import { noisePng } from './png.ts'
import { LocalAgent, Processes } from './processes.ts'
import { PATIENCE, pastes, Sharing } from './sharing.ts'

const bench = new Bench()
const hostFile = join(bench.folder, 'host.kept')
let processes: Processes
let agent: LocalAgent
let guest: Desk
const running: Sharing[] = []

beforeAll(async () => {
  processes = new Processes(bench.folder, await ensureDesktopTools())
  agent = await LocalAgent.start(processes)
  guest = new Desk(localShell(agent.env), join(bench.folder, 'guest.kept'))
})
afterEach(async () => {
  for (const one of running.splice(0)) await one.end()
})
afterAll(async () => {
  await processes?.close()
  await bench.close()
})

async function share(env: NodeJS.ProcessEnv, ...words: string[]): Promise<Sharing> {
  const sharing = await Sharing.start(bench, ['--socket', agent.socket, ...words], env)
  running.push(sharing)
  return sharing
}

describe('Wayland', () => {
  let env: NodeJS.ProcessEnv
  let host: Desk
  beforeAll(async () => {
    env = await processes.compositor()
    host = new Desk(localShell(env), hostFile, 'wayland')
  })

  it('text and a picture of 5 MB, both ways; PRIMARY', { timeout: 2 * PATIENCE }, async () => {
    const sharing = await share(env, '--primary')
    await host.copy('Grüße ẞ')
    await pastes(guest, 'Grüße ẞ')
    await guest.copy('zurück 😀')
    await pastes(host, 'zurück 😀')
    await guest.copy('one', 'primary')
    await pastes(host, 'one', 'primary')
    await host.copy('two', 'primary')
    await pastes(guest, 'two', 'primary')
    const picture = noisePng(5_000_000)
    writeFileSync(hostFile, picture)
    await host.copyKept(PNG)
    await keeps(guest, checksum(picture))
    await host.copy('between')
    await pastes(guest, 'between')
    await sharing.copied('guest', () => guest.copyKept(PNG))
    await keeps(host, checksum(picture))
    const from = sharing.events.length
    await host.copy('no echo')
    await pastes(guest, 'no echo')
    expect(sharing.said(from)).toEqual(['host clipboard'])
  })

  it('owners in quick succession', { timeout: 2 * PATIENCE }, async () => {
    const sharing = await share(env)
    for (let n = 1; n <= 10; n++) await guest.copy(`g ${n}`)
    await pastes(host, 'g 10')
    for (let n = 1; n <= 10; n++) await host.copy(`h ${n}`)
    await pastes(guest, 'h 10')
    const from = sharing.events.length
    await host.run('wl-copy --clear')
    await until('it is told', () => sharing.said(from).length > 0, PATIENCE)
    expect(sharing.said(from)).toEqual(['host clipboard let go'])
    await until('the guest is told', async () => (await guest.paste()) === '', PATIENCE)
  })
})

describe.each(['xclip', 'xsel'])('X11 through %s', (program) => {
  it('text, both ways', { timeout: PATIENCE }, async () => {
    const env = await processes.xServer()
    const host = new Desk(localShell(env), hostFile)
    const sharing = await share(env, '--backend', program)
    await host.copy('Grüße ẞ')
    await pastes(guest, 'Grüße ẞ')
    await guest.copy('zurück 😀')
    await pastes(host, 'zurück 😀')
    await host.copy('again')
    await pastes(guest, 'again')
    expect(sharing.said().slice(-3)).toEqual(['host clipboard', 'guest clipboard', 'host clipboard'])
  })
})
