/**
 * Programs that do anything with a character device, and requests that no kernel makes: any opcode, any fields, cut
 * short, interrupted, answered late. Each request is answered at most once and by its own number, what was written
 * reaches the port in order, nobody who left is waited for, and closing gives every descriptor back.
 */

import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { CuseDevice } from '../src/chardev/cuse/device.ts'
import { FakePort, Kernel } from '../test/support/cuse-kernel.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const OPS = 200
const O_NONBLOCK = 0o4000
const [OPEN, READ, WRITE, RELEASE, INTERRUPT, IOCTL, POLL] = [14, 15, 16, 18, 36, 39, 40]
const OPCODES = [OPEN, READ, WRITE, RELEASE, INTERRUPT, IOCTL, POLL, 1, 2, 25, 26, 99, 4096]
const ROOM = [0, 1, 100, 5000, 1 << 17]

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  const before = readdirSync('/proc/self/fd').length
  const kernel = new Kernel()
  const port = new FakePort()
  const device = (port.device = new CuseDevice(
    { name: 'fuzz', major: 0, minor: 0, door: kernel, share: r.chance(50) },
    port,
  ))
  kernel.replies()
  const open = new Set<number>()
  /** What stands in the answer to a write counts as sent, in the order of the requests. */
  const writes: { unique: number; data: Uint8Array }[] = []
  const sent: Uint8Array[] = []
  const answer = (): void => {
    while (device.serve(1 + r.below(4)));
    for (const { unique, error, body } of kernel.replies()) {
      if (unique === 0) continue // a notification
      assert.ok(open.delete(unique), `request ${unique} was answered twice, or never made`)
      const at = writes.findIndex((write) => write.unique === unique)
      if (at === -1) continue
      const [write] = writes.splice(at, 1)
      if (error !== 0) continue
      const taken = body.readUInt32LE(0)
      assert.ok(taken <= write!.data.length, `${taken} of ${write!.data.length} bytes were taken`)
      sent.push(write!.data.subarray(0, taken))
    }
  }
  try {
    for (let i = 0; i < OPS && !r.ended; i++) {
      r.step()
      let unique = 0
      switch (r.below(12)) {
        case 0:
          device.setHostOpen(r.chance(70))
          break
        case 1:
          unique = kernel.request(OPEN, [r.chance(50) ? 0 : O_NONBLOCK, 0])
          break
        case 2:
          unique = kernel.request(RELEASE, [1 + r.below(3), 0, 0, 0, 0, 0])
          break
        case 3:
        case 4: {
          const data = r.bytes(r.pick([0, 1, 7, 500, 5000]))
          unique = kernel.write(data, r.chance(50) ? O_NONBLOCK : 0)
          writes.push({ unique, data })
          break
        }
        case 5:
        case 6:
          unique = kernel.read(r.pick([0, 1, 100, 4096, 131_072, 0xffff_ffff]), {
            flags: r.chance(50) ? O_NONBLOCK : 0,
            offset: r.below(3),
          })
          break
        case 7:
          // To one that waits, to one that was answered, to one that never was.
          kernel.request(INTERRUPT, [r.pick([...open, 2, r.word()]), 0])
          break
        case 8:
          unique = kernel.request(POLL, [1, 0, r.below(4), 0, r.below(2), r.below(64)])
          break
        case 9:
          port.give(Buffer.from(r.bytes(r.below(3000))))
          break
        case 10:
          port.makeRoom(r.pick(ROOM))
          break
        default: {
          const opcode = r.pick(OPCODES.filter((code) => code !== WRITE && code !== INTERRUPT))
          const words = Array.from({ length: r.below(14) }, () => (r.chance(70) ? r.below(4) : r.word()))
          unique = kernel.request(opcode, words, r.bytes(r.below(64)))
        }
      }
      if (unique !== 0) open.add(unique)
      if (r.chance(80)) answer()
    }
    answer()
    const expected = Buffer.concat(sent)
    // Behind it there may be a part of a write that still waits.
    assert.ok(port.received.subarray(0, expected.length).equals(expected), 'the port got other bytes than were taken')
    const rest = port.received.length - expected.length
    assert.ok(rest <= Math.max(0, ...writes.map(({ data }) => data.length)), `${rest} bytes too many`)
    device.setHostOpen(false)
    answer()
  } finally {
    device.close()
    kernel.close()
  }
  assert.equal(readdirSync('/proc/self/fd').length, before, 'descriptors leak')
  return OPS
}

export const CUSE: FuzzTarget = simple('cuse', 'requests of any kind to a character device', episode)
