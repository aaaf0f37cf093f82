/** The channel between a device process and its keeper, both ends in one process. */
import { mkdtempSync, openSync, closeSync, fstatSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { closeFd } from '../../src/ffi/libc.ts'
import { packetPair } from '../../src/ffi/socket-calls.ts'
import { PacketReader, sendPacket, type Packet } from '../../src/keeper/channel.ts'
import { ChannelEnd, type ChannelOwner } from '../../src/keeper/channel-end.ts'
import { Shelf } from '../../src/keeper/shelf.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const OWNER: ChannelOwner = { packet() {}, ended() {} }

/** Packets that a channel takes while nobody reads. */
function capacity(): number {
  const { ours, theirs } = packetPair()
  let count = 0
  while (sendPacket(ours, 'K', 'name') === 'sent') count++
  closeFd(ours)
  closeFd(theirs)
  return count
}

const room = capacity()
const aroundTheLimit = fc.integer({ min: room - 3, max: room + 3 })

it('whatever there is arrives, in order, with its own descriptors, and the end mark last', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-test-'))
  const files = Array.from({ length: 8 }, (_, i) => openSync(join(folder, String(i)), 'w'))
  const thing = fc.record({ note: fc.constantFrom(0, 90, 30_000), fds: fc.constantFrom(0, 0, 1, 1, 1, 7, 60, 250) })
  const some = fc.array(thing, { maxLength: 60 })
  const many = aroundTheLimit.map((count) => Array.from({ length: count }, () => ({ note: 0, fds: 1 })))
  try {
    await fc.assert(
      fc.asyncProperty(fc.oneof(some, many), fc.integer({ min: 1, max: 50 }), async (things, reads) => {
        const { ours, theirs } = packetPair()
        const end = new ChannelEnd(ours, OWNER, { copies: false, patienceMs: 0 })
        for (const [i, { note, fds }] of things.entries()) {
          const list = Array.from({ length: fds }, (_, k) => files[(i + k) % 8]!)
          end.post(`K${i}`, 'K', String(i), 'x'.repeat(note), list)
        }
        end.post('E', 'E')
        const reader = new PacketReader()
        const seen: Packet[] = []
        while (seen.at(-1)?.operation !== 'E') {
          for (let i = 0; i < reads; i++) {
            const packet = reader.read(theirs)
            if (typeof packet === 'string') break
            seen.push(packet)
            const owned = packet.fds.map((fd) => fstatSync(fd).ino)
            for (const fd of packet.fds) closeFd(fd)
            if (packet.operation === 'E') break
            const at = seen.length - 1
            expect(packet.name).toBe(String(at))
            expect(packet.note.length).toBe(things[at]!.note)
            expect(owned).toEqual(owned.map((_, k) => fstatSync(files[(at + k) % 8]!).ino))
            expect(owned).toHaveLength(things[at]!.fds)
          }
          await turn()
        }
        expect(seen).toHaveLength(things.length + 1)
        end.close()
        closeFd(theirs)
      }),
      { numRuns: 60 },
    )
  } finally {
    for (const fd of files) closeSync(fd)
    rmSync(folder, { recursive: true })
  }
})

it('whoever reads when he likes ends with what the other end has now, and nothing waits that is not needed', async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('keep' as const), name: fc.integer({ min: 0, max: 20 }) }),
    fc.record({ do: fc.constant('forget' as const), name: fc.integer({ min: 0, max: 20 }) }),
    fc.record({ do: fc.constant('read' as const), name: fc.integer({ min: 1, max: 400 }) }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 1200, minLength: 400, size: 'max' }), async (steps) => {
      const { ours, theirs } = packetPair()
      const end = new ChannelEnd(ours, OWNER, { copies: true, patienceMs: 0 })
      const reader = new PacketReader()
      const shelf = new Shelf()
      const now = new Map<string, string>()
      const read = (count: number): void => {
        for (let i = 0; i < count; i++) {
          const packet = reader.read(theirs)
          if (typeof packet === 'string') return
          shelf.take(packet)
        }
      }
      for (const [i, { do: what, name }] of steps.entries()) {
        const key = String(name)
        if (what === 'read') {
          read(name)
          await turn()
        } else if (what === 'keep') {
          now.set(key, String(i))
          end.post(key, 'K', key, String(i), [theirs])
        } else {
          now.delete(key)
          end.post(key, 'F', key)
        }
      }
      for (let i = 0; i < 10; i++) {
        read(Infinity)
        await turn()
      }
      const held = [...shelf.items].map(([name, { note }]) => [name, note])
      expect(new Map(held as [string, string][])).toEqual(now)
      shelf.clear()
      end.close()
      closeFd(theirs)
    }),
    { numRuns: 40 },
  )
})

it('what an end has sent before it died is read, also where it left something unread', () => {
  const { ours, theirs } = packetPair()
  const seen: string[] = []
  let ended = 0
  const end = new ChannelEnd(
    ours,
    { packet: ({ name }) => seen.push(name), ended: () => ended++ },
    { copies: false, patienceMs: 0 },
  )
  end.post('P', 'P')
  for (const name of ['a', 'b', 'c']) sendPacket(theirs, 'K', name)
  closeFd(theirs)
  // The kernel says of a packet that was left unread before it hands over those that were sent.
  end.post('P', 'P')
  expect(seen).toEqual(['a', 'b', 'c'])
  expect(ended).toBe(1)
  expect(end.drain()).toBe('end')
})
