/** `vmchannel screenlock`: says what happens, a line each; with --json for programs. */

import { VmchannelError } from '../errors.ts'
import { guestScript } from '../screenlock/guest-script.ts'
import { lockOnDisconnect, type ScreenLockEvent } from '../screenlock/watch.ts'
import { named, portRef } from './control.ts'
import { paint, print, printJson, say } from './print.ts'
import type { Run } from './table.ts'

export const screenlockCommand: Run = async ({ args, options }) => {
  if (options['guestScript']) return print(guestScript())
  const [qmp] = args
  if (qmp === undefined)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', 'QMP is missing: which QEMU is meant?', {
      hint: 'start QEMU with -qmp unix:PATH,server=on,wait=off and name PATH here',
    })
  const port = options['port'] as string | undefined
  const socket = options['socket'] as string | undefined
  const via = options['via'] as 'agent' | 'port' | undefined
  if (socket !== undefined && (port !== undefined || via === 'port'))
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', '--socket goes with neither --port nor --via port', {
      hint: '--socket is for qemu-guest-agent where no device process of ours has its port',
    })
  const json = options['json'] === true
  await lockOnDisconnect({
    ...named(options),
    qmp,
    port: port === undefined ? undefined : portRef(port),
    socket,
    via,
    onEvent: (event) => (json ? printJson({ time: Date.now(), ...event }) : say(line(event))),
  })
  if (!json) say('QEMU has ended.')
}

function line(event: ScreenLockEvent): string {
  switch (event.event) {
    case 'watching':
      return `Watching: ${count(event.viewers)}, locking over ${event.via === 'port' ? "our own agent's port" : 'qemu-guest-agent'}.`
    case 'viewers':
      return `${count(event.viewers)}.`
    case 'asked':
      return `Nobody is looking any more: told the sessions to lock after ${seconds(event.ms)}.`
    case 'locked': {
      const names = event.sessions.filter(({ locked }) => locked).map(({ id, user }) => `${id} (${user})`)
      return paint('green', `Locked after ${seconds(event.ms)}: session ${names.join(', ')}.`, process.stderr)
    }
    case 'not-locked':
      return paint('red', `Not locked: ${event.why}.`, process.stderr)
    case 'waiting':
      return paint('yellow', `The guest cannot be asked yet: ${event.why.replaceAll(/\n\s*/g, '; ')}`, process.stderr)
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`
}

function count(viewers: number): string {
  return viewers === 0 ? 'nobody is looking' : `${viewers} viewer${viewers === 1 ? '' : 's'}`
}
