/** What screenlock must do with viewers, in whatever guest; called by the test with the small guest and with the desktop. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { Machine } from '../../lab/machine.ts'
import type { ScreenLockEvent } from '../../src/screenlock/watch.ts'
import { until } from '../cli/run.ts'
import { viewer } from './rfb.ts'
import { takePicture } from './stock-viewer.ts'

export const VNC_MS = 120_000

export interface Watched {
  machine: Machine
  events: ScreenLockEvent[]
  /** Makes the screen unlocked, as its user would. */
  unlock: () => Promise<void>
}

/** QEMU's arguments for a VNC display and a second QMP socket. */
export function vncArgs(qmp: string, more = ''): string[] {
  return ['-vnc', `127.0.0.1:0,to=99${more}`, '-qmp', `unix:${qmp},server=on,wait=off`]
}

export async function vncPort(machine: Machine): Promise<number> {
  return Number(((await machine.qmp('query-vnc')) as { service: string }).service)
}

/** The next event of a kind, after those that there are. */
export function next(
  events: ScreenLockEvent[],
  kind: ScreenLockEvent['event'],
  from: number,
): Promise<ScreenLockEvent> {
  return until(`event ${kind}`, () => events.slice(from).find(({ event }) => event === kind), VNC_MS)
}

/** Connects and closes without a handshake, and waits until QEMU has seen both. */
async function scan(machine: Machine, port: number): Promise<void> {
  const gone = machine.client.nextEvent('VNC_DISCONNECTED', VNC_MS)
  const socket: Socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.destroy()
  await gone
}

export function locksWhenTheLastViewerLeaves(get: () => Watched): void {
  const counted = (events: readonly ScreenLockEvent[]) =>
    events.map((one) => (one.event === 'viewers' ? `${one.viewers}` : one.event))

  it(
    'a viewer leaves: locked, and seen to be',
    async () => {
      const { machine, events, unlock } = get()
      const from = events.length
      ;(await viewer({ host: '127.0.0.1', port: await vncPort(machine) })).end()
      const locked = await next(events, 'locked', from)
      expect(locked).toMatchObject({ sessions: [expect.objectContaining({ user: 'guest', locked: true })] })
      expect(counted(events.slice(from))).toEqual(['1', '0', 'asked', 'locked'])
      console.log(`locked ${(locked as { ms: number }).ms} ms after the viewer left`)
      await unlock()
    },
    VNC_MS,
  )

  it(
    'a stock viewer (vncsnapshot)',
    async () => {
      const { machine, events, unlock } = get()
      const [from, port] = [events.length, await vncPort(machine)]
      expect(await takePicture(port - 5900, join(machine.folder, 'screen.jpg'))).toBeGreaterThan(500)
      await next(events, 'locked', from)
      expect(counted(events.slice(from))).toEqual(['1', '0', 'asked', 'locked'])
      await unlock()
    },
    VNC_MS,
  )

  it(
    'a port scan locks nothing, alone and beside a viewer',
    async () => {
      const { machine, events, unlock } = get()
      const [from, port] = [events.length, await vncPort(machine)]
      for (let n = 0; n < 3; n++) await scan(machine, port)
      const one = await viewer({ host: '127.0.0.1', port })
      await scan(machine, port)
      one.destroy()
      await next(events, 'locked', from)
      expect(counted(events.slice(from))).toEqual(['1', '0', 'asked', 'locked'])
      await unlock()
    },
    VNC_MS,
  )

  it(
    'of two viewers the last one locks; one who wants the screen alone sends others away and locks nothing',
    async () => {
      const { machine, events, unlock } = get()
      const [from, port] = [events.length, await vncPort(machine)]
      const first = await viewer({ host: '127.0.0.1', port })
      const second = await viewer({ host: '127.0.0.1', port })
      first.destroy()
      await until('one is left', () => counted(events.slice(from)).join() === '1,2,1', VNC_MS)
      const third = await viewer({ host: '127.0.0.1', port }, { exclusive: true })
      await once(second, 'close')
      await until(
        'the third is left',
        () => events.at(-1)!.event === 'viewers' && counted(events).at(-1) === '1',
        VNC_MS,
      )
      expect(counted(events.slice(from))).not.toContain('locked')
      third.destroy()
      await next(events, 'locked', from)
      expect(counted(events.slice(from)).filter((word) => word === 'locked')).toHaveLength(1)
      await unlock()
    },
    VNC_MS,
  )

  it(
    'a viewer that is killed',
    async () => {
      const { machine, events, unlock } = get()
      const [from, port] = [events.length, await vncPort(machine)]
      // Everything a viewer has to say, said at once: the server reads it in its own time.
      const program = `const s = require('net').connect(${port}, '127.0.0.1'); s.resume(); s.write('RFB 003.008\\n\\x01\\x01')`
      const child = spawn(process.execPath, ['-e', program], { stdio: 'ignore' })
      await next(events, 'viewers', from)
      child.kill('SIGKILL')
      await next(events, 'locked', from)
      await unlock()
    },
    VNC_MS,
  )
}
