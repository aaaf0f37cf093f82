/**
 * An appliance's daemon that has read the disk of a stranger: replies and chunks with any lengths, counts and words,
 * cut anywhere. Each call gives what it says or fails as a fault of the peer; nothing else is thrown, and what it makes
 * us keep stays small.
 */

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { PeerFault, VmchannelError } from '../src/errors.ts'
import { DaemonClient, DaemonError } from '../src/inspect/daemon-client.ts'
import { Procedures } from '../src/inspect/procedures.ts'
import { CANCEL_WORD, LAUNCH_WORD, PROGRESS_WORD } from '../src/inspect/wire.ts'
import { XdrWriter } from '../src/inspect/xdr.ts'
import { duplexPair } from '../test/support/duplex-pair.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const CALLS = 12
const WORDS = [0, 1, 2, 3, 4, 17, 100, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, CANCEL_WORD, PROGRESS_WORD, LAUNCH_WORD]
const TEXTS = ['', '/dev/sda1', 'ext4', 'linux', 'a'.repeat(500), '\u001b[2J', '/', 'x=y']

/** A call that came, as far as an answer needs it. */
interface Asked {
  proc: number
  serial: number
}

function reply(r: Random, { proc, serial }: Asked): Buffer {
  const body = new XdrWriter()
  const header = [0x2000_f5f5, 4, proc, 1, serial]
  for (const [i, value] of header.entries()) body.uint32(r.chance(98) ? value : i === 3 ? r.below(3) : r.pick(WORDS))
  body.uint64(0).uint64(0)
  const status = r.chance(85) ? 0 : r.chance(90) ? 1 : r.pick(WORDS)
  body.uint32(status)
  if (status === 1) body.string(r.pick(['ENOENT', '', 'E'.repeat(40)])).string(r.pick(TEXTS))
  else
    for (let i = r.below(4); i > 0; i--) {
      const kind = r.below(3)
      if (kind === 0) {
        const list = Array.from({ length: r.below(6) }, () => r.pick(TEXTS))
        body.uint32(r.chance(90) ? list.length : r.pick(WORDS))
        for (const text of list) body.string(text)
      } else if (kind === 1) body.string(r.pick(TEXTS))
      else body.uint32(r.pick(WORDS))
    }
  const bytes = body.bytes()
  const len = r.chance(94) ? bytes.length : r.pick(WORDS)
  return Buffer.concat([new XdrWriter().uint32(len).bytes(), bytes])
}

/** A file: chunks until an empty one, or more than anybody wants. */
function file(r: Random): Buffer {
  const parts: Buffer[] = []
  for (let i = r.below(r.pick([3, 40])); i >= 0; i--) {
    const data = i === 0 && r.chance(90) ? new Uint8Array(0) : new Uint8Array(r.pick([1, 4000, 8192]))
    const body = new XdrWriter()
      .uint32(r.chance(96) ? 0 : 1)
      .opaque(data)
      .bytes()
    parts.push(new XdrWriter().uint32(r.chance(97) ? body.length : r.pick(WORDS)).bytes(), body)
  }
  return Buffer.concat(parts)
}

type Call = (daemon: Procedures, client: DaemonClient) => Promise<unknown>
const CALLS_OF: readonly Call[] = [
  (daemon) => daemon.listFilesystems(),
  (daemon) => daemon.blockDevices(),
  (daemon) => daemon.volumes(),
  (daemon) => daemon.blkid('/dev/sda1'),
  (daemon) => daemon.inspectOs(),
  (daemon) => daemon.systemText('/', 'hostname'),
  (daemon) => daemon.systemNumber('/', 'majorVersion'),
  (daemon) => daemon.mountpoints('/'),
  (_, client) =>
    client.download(67, new XdrWriter().string('/f'), 20_000).then((bytes) => assert.ok(bytes.length <= 20_000)),
]

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const [guest, host] = duplexPair()
  let waiting = Buffer.alloc(0)
  guest
    .on('error', () => {})
    .on('data', (bytes: Buffer) => {
      waiting = Buffer.concat([waiting, bytes])
      while (waiting.length >= 4) {
        const word = waiting.readUInt32BE(0)
        const whole = word === CANCEL_WORD ? 4 : 4 + word
        if (waiting.length < whole) return
        if (word !== CANCEL_WORD) answer({ proc: waiting.readUInt32BE(12), serial: waiting.readUInt32BE(20) })
        waiting = waiting.subarray(whole)
      }
    })
  const answer = (asked: Asked): void => {
    const parts = [reply(r, asked)]
    if (r.chance(10)) parts.unshift(new XdrWriter().uint32(PROGRESS_WORD).bytes(), Buffer.from(r.bytes(24)))
    if (r.chance(5)) parts.unshift(new XdrWriter().uint32(CANCEL_WORD).bytes())
    if (asked.proc === 67) parts.push(file(r))
    const bytes = Buffer.concat(parts)
    const cut = r.chance(5) ? r.below(bytes.length) : bytes.length
    if (guest.destroyed || guest.writableEnded) return
    guest.write(bytes.subarray(0, cut))
    if (cut < bytes.length) guest.end()
  }
  const client = new DaemonClient(host)
  const daemon = new Procedures(client)
  try {
    for (let i = 0; i < CALLS && !r.ended; i++) {
      r.step()
      let over = false
      const call = r.pick(CALLS_OF)(daemon, client)
      try {
        await Promise.race([call, sleep(20).then(() => (over = true))])
      } catch (error) {
        if (error instanceof DaemonError) continue
        if (error instanceof PeerFault || error instanceof VmchannelError) break
        throw error
      }
      if (!over) continue
      // It waits for more than was sent: until the appliance is gone.
      guest.destroy()
      client.fail(new VmchannelError('ERR_VMCHANNEL_CLOSED', 'gone'))
      await call.catch((error: unknown) => {
        if (!(error instanceof VmchannelError || error instanceof DaemonError || error instanceof PeerFault))
          throw error
      })
      break
    }
  } finally {
    guest.destroy()
    host.destroy()
  }
  return CALLS
}

export const INSPECT_WIRE: FuzzTarget = simple('inspect-wire', 'appliances that answer anything', episode)
