/**
 * A guest's spice-vdagent that says anything: chunks and messages cut anywhere, announced longer than they are, grabs,
 * requests and contents that nobody asked for, megabytes of zeros. The session goes on or ends with a reason; nothing
 * throws, no turn of the event loop is long, contents are what was sent.
 */

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { VmchannelError } from '../src/errors.ts'
import { MemoryClipboard } from '../src/clipboard/memory.ts'
import { ClipboardSync } from '../src/clipboard/sync.ts'
import { CAPABILITY, chunks, encodeCapabilities, MESSAGE, MessageReader, MIME_TYPES } from '../src/clipboard/wire.ts'
import { duplexPair } from '../test/support/duplex-pair.ts'
import { settle } from '../test/support/pair.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const STEPS = 40
const LIMIT = 2 << 20
const ALL_CAPABILITIES = Object.values(CAPABILITY)
const SIZES = [0, 1, 7, 100, 5000, 300_000, 1_500_000]

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const [guest, ours] = duplexPair()
  const reader = new MessageReader(LIMIT)
  /** What we were asked for: heads of the answers. */
  const asked: Buffer[] = []
  guest
    .on('error', () => {})
    .on('data', (bytes: Buffer) => {
      reader.push(bytes, ({ type, data }) => void (type === MESSAGE.request && asked.push(Buffer.from(data))))
    })
  const backend = new MemoryClipboard()
  const sync = await ClipboardSync.start(async () => ours, {
    backend,
    limit: LIMIT,
    primary: r.chance(50),
    reconnect: 0,
  })
  const send = (bytes: Uint8Array): void => void (guest.destroyed || guest.writableEnded || guest.write(bytes))
  const say = (type: number, ...data: readonly Uint8Array[]): void => {
    const whole = Buffer.concat([...chunks(type, ...data)])
    if (r.chance(3)) whole[r.below(Math.min(whole.length, 28))] = r.below(256)
    send(r.chance(97) ? whole : whole.subarray(0, r.below(whole.length)))
  }
  const reads: Promise<unknown>[] = []
  say(
    MESSAGE.capabilities,
    encodeCapabilities(false, r.chance(80) ? ALL_CAPABILITIES : ALL_CAPABILITIES.filter(() => r.chance(70))),
  )
  try {
    for (let i = 0; i < STEPS && !r.ended; i++) {
      r.step()
      switch (r.below(9)) {
        case 0:
          say(MESSAGE.capabilities, encodeCapabilities(r.chance(50), ALL_CAPABILITIES))
          break
        case 1:
          say(
            MESSAGE.grab,
            Uint8Array.of(r.below(3), 0, 0, 0),
            word(r.chance(80) ? 0 : r.word()),
            ...Array.from({ length: r.below(4) }, () => word(r.pick([1, 1, r.below(8)]))),
          )
          break
        case 2:
          say(MESSAGE.request, Uint8Array.of(r.below(3), 0, 0, 0), word(r.below(8)))
          break
        case 3:
        case 4: {
          const head = r.chance(85) ? asked.shift() : undefined
          const content = new Uint8Array(r.pick(SIZES)).fill(r.pick([0, 0, 65, 255]))
          if (head) say(MESSAGE.clipboard, head, content)
          else if (r.chance(30)) say(MESSAGE.clipboard, Uint8Array.of(r.below(2), 0, 0, 0), word(r.below(7)), content)
          break
        }
        case 5:
          say(r.pick([MESSAGE.release, 5, 10, 99]), r.bytes(r.below(12)))
          break
        case 6:
          reads.push(
            backend
              .read(r.chance(60) ? MIME_TYPES[0] : r.pick(MIME_TYPES), r.pick(['clipboard', 'clipboard', 'primary']))
              .catch(expected),
          )
          break
        case 7:
          if (r.chance(60)) backend.write(r.chance(50) ? 'text' : { 'image/png': r.bytes(3000) })
          else send(r.bytes(r.below(60)))
          break
        default:
          await settle(1)
      }
    }
    await settle(2)
  } finally {
    ours.destroy()
    guest.destroy()
    await Promise.race([sync.closed.catch(expected), sleep(5000).then(() => assert.fail('it does not end'))])
    await Promise.all(reads)
  }
  return STEPS
}

function expected(error: unknown): void {
  if (!(error instanceof VmchannelError)) throw error
}

function word(value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value >>> 0)
  return bytes
}

export const CLIPBOARD: FuzzTarget = {
  ...simple('clipboard', "guests' clipboard agents that say anything", episode),
  turnMs: 60, // contents of more than a megabyte are copied several times
}
