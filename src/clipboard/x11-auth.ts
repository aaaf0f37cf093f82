/** Where an X server listens, and the key that it wants: DISPLAY and ~/.Xauthority. Used by x11-server.ts. */

import { readFileSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import type { NetConnectOpts } from 'node:net'
import { join } from 'node:path'
import { VmchannelError } from '../errors.ts'

export interface XDisplay {
  label: string
  host: string
  number: string
  /** To be tried in this order. */
  targets: NetConnectOpts[]
}

const TCP = 6000
const COOKIE = 'MIT-MAGIC-COOKIE-1'

/** What DISPLAY says. */
export function displayName(env: NodeJS.ProcessEnv): string {
  const display = env['DISPLAY']
  if (display) return display
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', 'there is no X11 display: DISPLAY is not set', {
    hint: 'run it in the desktop session whose clipboard is meant, or set DISPLAY (and XAUTHORITY)',
  })
}

/** "HOST:N.SCREEN", ":N", "unix:N". */
export function parseDisplay(text: string): XDisplay {
  const [, host, number] = /^(.*?):(\d{1,5})(?:\.\d+)?$/.exec(text) ?? []
  if (host === undefined || number === undefined || Number(number) > 59_535)
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `DISPLAY=${text} names no X server`, {
      hint: 'it looks like ":0" or "host:10.0"',
    })
  const path = `/tmp/.X11-unix/X${number}`
  const local = host === '' || host === 'unix' || host === 'localhost/unix'
  const plain = host.replace(/^tcp\//, '').replace(/^\[(.*)\]$/, '$1')
  const targets = local ? [{ path }, { path: `\0${path}` }] : [{ host: plain, port: TCP + Number(number) }]
  return { label: text, host: local ? '' : plain, number, targets }
}

/** The best entry for this display; none: the server may let us in without. */
export function findKey(
  env: NodeJS.ProcessEnv,
  { number, host }: XDisplay,
): { name: string; data: Buffer } | undefined {
  let file: Buffer
  try {
    file = readFileSync(env['XAUTHORITY'] ?? join(env['HOME'] ?? homedir(), '.Xauthority'))
  } catch {
    return undefined
  }
  const fitting = [...entries(file)].filter(
    (entry) => entry.name === COOKIE && (entry.number === '' || entry.number === number),
  )
  const wanted = host === '' || host === 'localhost' ? hostname() : host
  return fitting.find(({ address }) => address === wanted) ?? fitting[0]
}

/** Family, then four fields, each with its length: address, number, name, data; big-endian. */
function* entries(file: Buffer): Generator<{ address: string; number: string; name: string; data: Buffer }> {
  let at = 0
  while (at + 2 <= file.length) {
    at += 2
    const fields: Buffer[] = []
    for (let i = 0; i < 4; i++) {
      if (at + 2 > file.length) return
      const len = file.readUInt16BE(at)
      at += 2
      if (at + len > file.length) return
      fields.push(file.subarray(at, at + len))
      at += len
    }
    const [address, number, name, data] = fields as [Buffer, Buffer, Buffer, Buffer]
    yield { address: address.toString(), number: number.toString(), name: name.toString(), data }
  }
}
