/**
 * `lockOnDisconnect` and `vmchannel screenlock` with a real QEMU, its VNC server and QMP, and Debian's qemu-guest-agent in
 * the guest. The guest is small: its loginctl is a STAND-IN that plays a session with a locker. The real logind, with a
 * real locker, is in test/desktop/screenlock.desktop.ts.
 */
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { agentGuest } from '../../lab/agent-guest.ts'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { createDevice, lockOnDisconnect, type Device, type ScreenLockEvent } from '../../src/index.ts'
import { guestScript, LOCK_PORT } from '../../src/screenlock/guest-script.ts'
import { Bench, collect, until } from '../cli/run.ts'
import { locksWhenTheLastViewerLeaves, next, vncArgs, vncPort, VNC_MS } from './checks.ts'
import { viewer } from './rfb.ts'

const bench = new Bench()
const abort = new AbortController()
const events: ScreenLockEvent[] = []
let device: Device
let machine: Machine
let qmp: string
let watching: Promise<unknown>

const loseViewer = async (): Promise<void> =>
  void (await viewer({ host: '127.0.0.1', port: await vncPort(machine) })).destroy()

beforeAll(async () => {
  device = await createDevice({ log: 'ignore' })
  await device.addPort({ name: 'org.qemu.guest_agent.0', chardev: 'attach' })
  const files = { '/root/install.sh': { text: guestScript() } }
  const [qemu, kernel, guest] = [await ensureQemu(), await ensureKernel('6.1'), await agentGuest({ files })]
  machine = await Machine.boot({
    qemu: qemu.path,
    kernel,
    guest,
    args: (folder) => [...device.memoryArgs('256M'), ...device.qemuArgs, ...vncArgs(join(folder, 'screen.sock'))],
  })
  qmp = join(machine.folder, 'screen.sock')
  await machine.sh('until pidof qemu-ga; do sleep 0.1; done')
})
afterAll(async () => {
  abort.abort()
  await watching?.catch(() => {})
  await machine?.close()
  await device?.close()
  await bench.close()
})

describe('over qemu-guest-agent, with a stand-in for loginctl', () => {
  beforeAll(async () => {
    const onEvent = (event: ScreenLockEvent): void => void events.push(event)
    watching = lockOnDisconnect({ qmp, control: device.controlSocket, signal: abort.signal, onEvent })
    watching.catch(() => {})
    await Promise.race([next(events, 'watching', 0), watching])
  })

  const unlock = async (): Promise<void> => void (await machine.sh('rm -f /tmp/locked'))
  locksWhenTheLastViewerLeaves(() => ({ machine, events, unlock }))

  it(
    'looks once where all is locked at once: managers and text consoles never are, and nobody waits for them',
    async () => {
      await machine.sh('echo -n >/tmp/looks')
      const from = events.length
      await loseViewer()
      await next(events, 'locked', from)
      expect(await machine.sh('wc -l </tmp/looks')).toBe('1')
      await unlock()
    },
    VNC_MS,
  )

  it(
    'says so when nothing was locked, and why',
    async () => {
      const tell = async (prepare: string): Promise<ScreenLockEvent> => {
        await machine.sh(prepare)
        const from = events.length
        await loseViewer()
        return next(events, 'not-locked', from)
      }
      expect(await tell('touch /tmp/no-locker; echo -n >/tmp/locks')).toMatchObject({
        why: expect.stringMatching(/session 1 of guest \(x11\) does not say that it is locked/),
        sessions: [{ id: '1', user: 'guest', type: 'x11', locked: false }],
      })
      expect(await machine.sh('wc -l </tmp/locks')).toBe('5')
      expect(await tell('echo tty >/tmp/type')).toMatchObject({ why: expect.stringMatching(/only text consoles/) })
      expect(await tell('rm /tmp/type; touch /tmp/nobody')).toMatchObject({ why: 'nobody is logged in' })
      await machine.sh('rm /tmp/nobody /tmp/no-locker')
    },
    VNC_MS,
  )

  it(
    'keeps the wish while the agent is away, and while another has its port',
    async () => {
      let from = events.length
      const held = await device.attach('org.qemu.guest_agent.0')
      await loseViewer()
      expect(await next(events, 'waiting', from)).toMatchObject({
        why: expect.stringMatching(/attached to already/),
      })
      held.destroy()
      await next(events, 'locked', from)
      await unlock()
      from = events.length
      await machine.sh('echo -n "-b guest-exec" >/tmp/agent-options; kill $(pidof qemu-ga)')
      await loseViewer()
      await until(
        'the reason',
        () => events.slice(from).some((one) => one.event === 'waiting' && /switched off/.test(one.why)),
        VNC_MS,
      )
      await machine.sh('rm /tmp/agent-options; kill $(pidof qemu-ga)')
      await next(events, 'locked', from)
      await unlock()
    },
    VNC_MS,
  )

  it('ends by its signal', async () => {
    abort.abort()
    await expect(watching).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_ABORTED' })
  })
})

describe('vmchannel screenlock', () => {
  it(
    'says what is wrong with its arguments',
    async () => {
      const run = (...words: string[]) => bench.run(['screenlock', '--control', device.controlSocket, ...words])
      const wrong = async (status: number, text: RegExp, ...words: string[]): Promise<void> =>
        expect(await run(...words)).toMatchObject({ status, stderr: expect.stringMatching(text) })
      await wrong(2, /QMP is missing/)
      await wrong(8, /there is no such socket[^]*-qmp unix:PATH/, bench.path('none.sock'))
      await wrong(8, /this is no socket|no such socket|refused|nobody listens/, bench.script('file', ''))
      await wrong(2, /--socket goes with neither/, '--socket', 'x', '--via', 'port', qmp)
      const server = createServer((socket) => socket.end('220 mail\n'))
      await new Promise<void>((done) => server.listen(bench.path('mail.sock'), done))
      await wrong(8, /no greeting of QEMU/, bench.path('mail.sock'))
      server.close()
    },
    VNC_MS,
  )

  it('says when the QEMU has no VNC', async () => {
    const server = createServer((socket) => {
      socket.write('{"QMP": {"version": {}, "capabilities": []}}\n')
      socket.on('data', (chunk: Buffer) => {
        const { id } = JSON.parse(chunk.toString()) as { id: number }
        socket.write(`${JSON.stringify({ id, return: chunk.includes('vnc') ? [] : {} })}\n`)
      })
    })
    await new Promise<void>((done) => server.listen(bench.path('bare.sock'), done))
    expect(await bench.run(['screenlock', bench.path('bare.sock')])).toMatchObject({
      ...{ status: 8, stderr: expect.stringMatching(/has no VNC display[^]*-vnc/) },
    })
    server.close()
  })

  it(
    'over our own small agent: a port that comes later, JSON lines, the end of QEMU',
    async () => {
      await machine.sh('sh /root/install.sh; kill $(pidof qemu-ga)')
      machine.spawn('/usr/local/lib/vmchannel/lock-agent')
      await device.addPort({ name: LOCK_PORT, chardev: 'attach' })
      const child = bench.start(['screenlock', '--json', '--control', device.controlSocket, qmp])
      const ended = collect(child)
      const seen: (ScreenLockEvent & { time: number })[] = []
      let text = ''
      child.stdout!.on('data', (chunk: string) => {
        const lines = (text + chunk).split('\n')
        text = lines.pop()!
        for (const line of lines) seen.push(JSON.parse(line) as ScreenLockEvent & { time: number })
      })
      expect(await next(seen, 'watching', 0)).toMatchObject({ via: 'port', viewers: 0 })
      await loseViewer()
      expect(await next(seen, 'locked', 0)).toMatchObject({ sessions: [{ id: '1', user: 'guest', locked: true }] })
      // A hook of the guest instead of loginctl; one that fails.
      await machine.sh(
        'rm /tmp/locked; mkdir -p /etc/vmchannel; printf "#!/bin/sh\\necho broken; exit 3\\n" >/etc/vmchannel/lock; chmod +x /etc/vmchannel/lock',
      )
      const from = seen.length
      await loseViewer()
      expect(await next(seen, 'waiting', from)).toMatchObject({ why: expect.stringMatching(/could not lock: broken/) })
      await machine.sh('printf "#!/bin/sh\\ntouch /tmp/locked\\n" >/etc/vmchannel/lock')
      await next(seen, 'locked', from)
      machine.qmp('quit').catch(() => {})
      expect(await ended).toMatchObject({ status: 0, stderr: '' })
    },
    VNC_MS,
  )
})
