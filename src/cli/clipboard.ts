/** `vmchannel clipboard`: runs until it is interrupted or the VM ends, and says what is copied; with --json for programs. */

import { size } from '../chardev/options.ts'
import { connectClipboard } from '../clipboard/connect.ts'
import { type BackendName, desktopClipboard } from '../clipboard/select-backend.ts'
import type { ClipboardEvent, Direction } from '../clipboard/sync.ts'
import { MIME_TYPES, type MimeType } from '../clipboard/wire.ts'
import { VmchannelError } from '../errors.ts'
import { printable } from '../log.ts'
import { timeoutMs } from './agent-connect.ts'
import { named, portRef } from './control.ts'
import { paint, printJson, say, warn } from './print.ts'
import type { Run } from './table.ts'

const LIMIT = size(1024, 2 ** 30)
/** After this long without an agent it is said what may be missing. */
const SILENCE_MS = 10_000
const WHY_MAX = 300

export const clipboardCommand: Run = async ({ options }) => {
  const text = (name: string): string | undefined => options[name] as string | undefined
  const [port, socket] = [text('port'), text('socket')]
  if (socket !== undefined && port !== undefined)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', '--socket and --port exclude each other', {
      hint: '--socket is for a port that no device process of ours has',
    })
  const timeout = timeoutMs(options)
  const json = options['json'] === true
  const sync = await connectClipboard({
    ...named(options),
    backend: desktopClipboard(text('backend') as BackendName),
    direction: text('direction') as Direction,
    limit: limit(text('limit')!),
    types: types(text('types')),
    primary: options['primary'] === true,
    port: port === undefined ? undefined : portRef(port),
    socket,
    onEvent: (event) => (json ? printJson({ time: Date.now(), ...event }) : tell(event)),
  })
  const stop = (): void => void sync.close()
  process.once('SIGINT', stop).once('SIGTERM', stop)
  const silence = setTimeout(() => {
    if (!sync.connected && !json)
      warn('no spice-vdagent has answered yet: is it installed in the guest, and somebody logged in to a desktop?')
  }, SILENCE_MS)
  try {
    if (timeout !== undefined) await answered(sync.ready({ timeout }), timeout)
    await sync.closed
  } finally {
    clearTimeout(silence)
    await sync.close()
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}

async function answered(ready: Promise<void>, timeout: number): Promise<void> {
  try {
    await ready
  } catch (cause) {
    if (!(cause instanceof VmchannelError) || cause.code !== 'ERR_VMCHANNEL_TIMEOUT') throw cause
    throw new VmchannelError('ERR_VMCHANNEL_TIMEOUT', `no spice-vdagent answered within ${timeout / 1000} s`, {
      hint: 'is the package spice-vdagent installed in the guest, and somebody logged in to a desktop?',
      cause,
    })
  }
}

function tell(event: ClipboardEvent): void {
  switch (event.event) {
    case 'agent':
      return say(paint('green', "The guest's agent is there.", process.stderr))
    case 'lost':
      return say(paint('yellow', `The guest's agent is gone: ${printable(event.why, WHY_MAX)}`, process.stderr))
    case 'copied': {
      const what = event.selection === 'primary' ? ' (primary selection)' : ''
      if (event.types.length === 0) return say(`${who(event.from)} let go of its clipboard${what}.`)
      return say(`${who(event.from)} copied${what}: ${event.types.map(short).join(', ')}.`)
    }
    case 'refused':
      return warn(`what the ${event.from} copied was not handed over: ${printable(event.why, WHY_MAX)}`)
  }
}

function who(from: 'guest' | 'host'): string {
  return from === 'guest' ? 'The guest' : 'The host'
}

function short(type: MimeType): string {
  return type.startsWith('text/') ? 'text' : type
}

function limit(value: string): number {
  const bytes = LIMIT.parse(value)
  if (LIMIT.check(bytes)) return bytes as number
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--limit ${value}: expected ${LIMIT.expected}`)
}

function types(list: string | undefined): MimeType[] | undefined {
  if (list === undefined) return undefined
  return list.split(',').flatMap((word) => {
    const found = MIME_TYPES.filter((type) => {
      const [group, sub] = type.replace(/;.*/, '').split('/')
      return [type, `${group}/${sub}`, `${group}/*`, group, sub].includes(word.trim().toLowerCase())
    })
    if (found.length > 0) return found
    throw new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      `--types ${list}: "${word}" is none of the types that can be shared`,
      {
        hint: `there are: text, image, ${MIME_TYPES.map((type) => type.replace(/;.*/, '')).join(', ')}`,
      },
    )
  })
}
