/** A Debian desktop, locked by logind and its own locker when the last viewer leaves: over qemu-guest-agent on our device. */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { desktopGuest, desktopUp } from '../../lab/desktop-guest.ts'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { createDevice, lockOnDisconnect, type Device, type ScreenLockEvent } from '../../src/index.ts'
import { guestScript, LOCK_PORT } from '../../src/screenlock/guest-script.ts'
import { until } from '../cli/run.ts'
import { locksWhenTheLastViewerLeaves, next, vncArgs, VNC_MS } from '../screenlock/checks.ts'

let device: Device
let machine: Machine
let qmp: string

beforeAll(async () => {
  device = await createDevice({ log: 'ignore' })
  await device.addPort({ name: 'org.qemu.guest_agent.0', chardev: 'attach' })
  const { args, ...desktop } = await desktopGuest()
  machine = await Machine.boot({
    ...{ qemu: (await ensureQemu()).path, kernel: await ensureKernel('6.12') },
    ...desktop,
    args: (folder) => [
      ...args,
      ...device.memoryArgs(desktop.memory!),
      ...device.qemuArgs,
      ...vncArgs(join(folder, 'screen.sock')),
    ],
  })
  qmp = join(machine.folder, 'screen.sock')
  await desktopUp(machine)
  await machine.sh('until pgrep xss-lock && pgrep qemu-ga; do sleep 0.3; done', { timeout: VNC_MS })
})
afterAll(async () => {
  await machine?.close()
  await device?.close()
})

async function unlock(): Promise<void> {
  expect((await machine.run('pgrep i3lock')).status).toBe(0)
  await machine.sh('loginctl unlock-sessions')
  const locked = async (): Promise<boolean> => (await machine.run('pgrep i3lock')).status === 0
  await until('the locker has gone', async () => !(await locked()), VNC_MS)
}

describe.each(['agent', 'port'] as const)('a desktop, over %s', (via) => {
  const abort = new AbortController()
  const events: ScreenLockEvent[] = []
  let watching: Promise<unknown>

  beforeAll(async () => {
    if (via === 'port') {
      // Our own agent, brought in by the other one and started by udev when its port comes.
      const { connectAgent } = await import('../../src/index.ts')
      const agent = await connectAgent({ control: device.controlSocket })
      expect(await agent.exec('sh', [], { input: guestScript() })).toMatchObject({ status: 0 })
      agent.close()
      await device.addPort({ name: LOCK_PORT, chardev: 'attach' })
      await until(
        'systemd starts it',
        async () => (await device.ports()).some((one) => one.name === LOCK_PORT && one.guestOpen),
        VNC_MS,
      )
      await machine.sh('systemctl stop qemu-guest-agent')
    }
    const onEvent = (event: ScreenLockEvent): void => void events.push(event)
    watching = lockOnDisconnect({ qmp, control: device.controlSocket, signal: abort.signal, onEvent })
    watching.catch(() => {})
    expect(await Promise.race([next(events, 'watching', 0), watching])).toMatchObject({ via })
  })
  afterAll(async () => {
    abort.abort()
    await watching?.catch(() => {})
  })

  locksWhenTheLastViewerLeaves(() => ({ machine, events, unlock }))

  it(
    'says that nothing was locked where the locker has died',
    async () => {
      if (via === 'port') return
      const { viewer } = await import('../screenlock/rfb.ts')
      const { vncPort } = await import('../screenlock/checks.ts')
      await machine.sh('kill -STOP $(pgrep xss-lock)')
      const from = events.length
      ;(await viewer({ host: '127.0.0.1', port: await vncPort(machine) })).destroy()
      expect(await next(events, 'not-locked', from)).toMatchObject({ why: expect.stringMatching(/guest \(x11\)/) })
      await machine.sh('kill -CONT $(pgrep xss-lock)')
      await until('the locker catches up', async () => (await machine.run('pgrep i3lock')).status === 0, VNC_MS)
      await unlock()
    },
    VNC_MS,
  )
})
