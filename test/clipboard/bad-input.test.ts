/** What `vmchannel clipboard` says where something is missing or wrong: the thing, what was found, the next step. */
import { createServer, type Server } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDevice, type Device } from '../../src/index.ts'
import { Bench, type Result } from '../cli/run.ts'

const bench = new Bench()
const servers: Server[] = []
let device: Device

beforeAll(async () => {
  device = await createDevice({ log: 'ignore' })
  await device.addPort({ name: 'com.redhat.spice.0', chardev: 'attach' })
  await device.addPort({ name: 'other', chardev: 'attach' })
})
afterAll(async () => {
  for (const server of servers) server.close()
  await device?.close()
  await bench.close()
})

const NOWHERE = { DISPLAY: undefined, WAYLAND_DISPLAY: undefined, PATH: '/nowhere' }

async function refused(status: number, text: RegExp, words: string[], env: NodeJS.ProcessEnv = {}): Promise<Result> {
  const result = await bench.run(['clipboard', ...words], { env: { ...NOWHERE, ...env } })
  expect(result.stderr).toMatch(text)
  expect(result).toMatchObject({ status, stdout: '' })
  expect(result.stderr).not.toContain('    at ')
  return result
}

/** A socket where somebody says this and hears out whoever comes: the end is seen only behind what was to read. */
async function peer(name: string, says = ''): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => {}).resume()
    if (says !== '') socket.write(says)
  })
  servers.push(server)
  await new Promise<void>((done) => server.listen(bench.path(name), done))
  return bench.path(name)
}

describe('the desktop of the host', () => {
  it.each([
    ['no display', [], {}, 9, /neither WAYLAND_DISPLAY nor DISPLAY[^]*desktop session/],
    ['no X11 display', ['--backend', 'x11'], {}, 9, /DISPLAY is not set/],
    ['a display that is none', ['--backend', 'x11'], { DISPLAY: 'nonsense' }, 9, /DISPLAY=nonsense names no X server/],
    ['nobody at the display', [], { DISPLAY: ':4711' }, 9, /no X server at DISPLAY=:4711[^]*desktop session/],
    ['no xclip', ['--backend', 'xclip'], { DISPLAY: ':0' }, 9, /package xclip, or use --backend x11/],
    ['no xsel', ['--backend', 'xsel'], { DISPLAY: ':0' }, 9, /package xsel/],
    ['no wl-clipboard', [], { WAYLAND_DISPLAY: 'wayland-9' }, 9, /package wl-clipboard/],
  ] as const)('%s', async (_, words, env, status, text) => {
    await refused(status, text, ['--control', device.controlSocket, ...words], env)
  })
})

describe('the agent of the guest', () => {
  const X = { DISPLAY: ':4711' }

  it('wrong arguments', async () => {
    await refused(2, /--socket and --port exclude/, ['--socket', 'x', '--port', 'y'], X)
    await refused(2, /--limit 1: expected/, ['--limit', '1'], X)
    await refused(2, /"video" is none of the types[^]*image\/png/, ['--types', 'text,video'], X)
    await refused(2, /sideways/, ['--direction', 'sideways'], X)
  })

  it('no such port, no such socket, no device', async () => {
    const control = ['--control', device.controlSocket]
    await refused(5, /has no port nope[^]*com.redhat.spice.0, other/, [...control, '--port', 'nope'], X)
    await refused(5, /none.sock/, ['--socket', bench.path('none.sock')], X)
    await device.removePort('com.redhat.spice.0')
    await refused(5, /vmchannel port add attach,name=com.redhat.spice.0/, control, X)
    await device.addPort({ name: 'com.redhat.spice.0', chardev: 'attach' })
  })
})

describe('with a desktop', () => {
  let display: NodeJS.ProcessEnv
  let end: () => Promise<void>
  beforeAll(async () => {
    const { ensureDesktopTools } = await import('../../lab/fetch/desktop-tools.ts')
    const { Processes } = await import('./processes.ts')
    const processes = new Processes(bench.folder, await ensureDesktopTools())
    display = await processes.xServer()
    end = () => processes.close()
  })
  afterAll(() => end?.())

  it('somebody else has the port', async () => {
    const held = await device.attach('com.redhat.spice.0')
    await refused(4, /attached to already/, ['--control', device.controlSocket], display)
    held.destroy()
  })

  it('a port that no agent opens, an agent that does not answer, one that talks nonsense', async () => {
    const silent = /no spice-vdagent answered within 0.5 s[^]*package spice-vdagent/
    await refused(13, silent, ['--control', device.controlSocket, '--timeout', '0.5'], display)
    const mute = await peer('mute.sock')
    await refused(13, silent, ['--socket', mute, '--timeout', '0.5'], display)
    const shop = await peer('shop.sock', '220 mail.example.org ready\r\n')
    const nonsense =
      /^The guest's agent is gone: .*what spice-vdagent does not: a chunk for port.*\nvmchannel: no spice/
    await refused(13, nonsense, ['--socket', shop, '--timeout', '2.5'], display)
  })
})
