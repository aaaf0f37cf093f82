/**
 * `vmchannel clipboard` between a desktop here and one in a guest: stock spice-vdagent on our device, stock programs that
 * copy and paste on both sides. The same checks without a machine are in test/clipboard/agent.test.ts.
 */
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { AS_GUEST, desktopGuest, desktopUp } from '../../lab/desktop-guest.ts'
import { ensureDesktopTools } from '../../lab/fetch/desktop-tools.ts'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { connectClipboard, createDevice, type Device, MemoryClipboard } from '../../src/index.ts'
import { Bench, until } from '../cli/run.ts'
import { sharesAClipboard, type Shared } from '../clipboard/checks.ts'
import { Desk, localShell, quote } from '../clipboard/desk.ts'
import { Processes } from '../clipboard/processes.ts'
import { PATIENCE, pastes, Sharing } from '../clipboard/sharing.ts'

const PORT = 'com.redhat.spice.0'
const bench = new Bench()
let processes: Processes
let device: Device
let machine: Machine
let guest: Desk

beforeAll(async () => {
  processes = new Processes(bench.folder, await ensureDesktopTools())
  device = await createDevice({ log: 'ignore' })
  await device.addPort({ name: PORT, chardev: 'attach' })
  const { args, ...desktop } = await desktopGuest()
  machine = await Machine.boot({
    ...{ qemu: (await ensureQemu()).path, kernel: await ensureKernel('6.12') },
    ...desktop,
    args: [...args, ...device.memoryArgs(desktop.memory!), ...device.qemuArgs],
  })
  await desktopUp(machine)
  const shell = (command: string) => machine.run(`${AS_GUEST} sh -c ${quote(command)}`, { timeout: PATIENCE })
  guest = new Desk(shell, '/tmp/kept')
})
afterAll(async () => {
  await machine?.close()
  await device?.close()
  await processes?.close()
  await bench.close()
})

/** Whoever had the port has left it. */
const free = (): Promise<unknown> =>
  until('the port is free', async () => {
    const port = (await device.ports()).find(({ name }) => name === PORT)
    return port && !port.hostConnected
  })

describe('a desktop', () => {
  let shared: Shared
  const running: Sharing[] = []
  beforeAll(async () => {
    const env = await processes.xServer()
    const hostFile = join(bench.folder, 'host.kept')
    shared = {
      guest,
      host: new Desk(localShell(env), hostFile),
      hostFile,
      share: async (...args) => {
        await free()
        const sharing = await Sharing.start(bench, ['--control', device.controlSocket, ...args], env)
        running.push(sharing)
        return sharing
      },
      restartAgent: async () =>
        void (await machine.sh('pkill -KILL -x spice-vdagent; systemctl restart spice-vdagentd', {
          timeout: PATIENCE,
        })),
    }
  })
  afterEach(async () => {
    for (const one of running.splice(0)) await one.end()
  })

  sharesAClipboard(() => shared)
})

describe('a program', () => {
  it('reads what the guest copies, and writes what it pastes', { timeout: 2 * PATIENCE }, async () => {
    await free()
    const clipboard = new MemoryClipboard()
    const sync = await connectClipboard({ control: device.controlSocket, backend: clipboard })
    await sync.ready({ timeout: PATIENCE })
    await guest.copy('Grüße 😀')
    await until('copied', () => clipboard.available().length > 0, PATIENCE)
    expect(await clipboard.readText()).toBe('Grüße 😀')
    clipboard.write('vom Gastgeber: ß\n2')
    await pastes(guest, 'vom Gastgeber: ß\n2')
    expect(sync.counters).toMatchObject({ toHost: { copies: 1, contents: 1 }, toGuest: { copies: 1, contents: 1 } })
    await sync.close()
  })
})
