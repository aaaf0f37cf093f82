/** What is checked in every cell, in this order, in one machine. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import { Pattern, patternSha256 } from '../lab/pattern.ts'
import { readBytes, until } from '../lab/wait.ts'
import { PORTS, type Sides } from './sides.ts'

const MIB = 1 << 20
const [A = '', B = ''] = PORTS
const HOT = 'org.matrix.hot'
const NEXT = 'org.matrix.next'
/** Write sizes with their totals. */
const SIZES: readonly (readonly [size: number, total: number])[] = [
  [1, 300],
  [4097, 16 * 4097],
  [100_000, MIB],
  [MIB, 2 * MIB],
]
const WAIT_MS = 60_000

export const CHECKS: Readonly<Record<string, (sides: Sides) => Promise<void>>> = {
  async 'ports and names'({ guest }) {
    await until(
      async () => isDeepStrictEqual(await guest.names(), [...PORTS]),
      `the guest has ${PORTS.join()}`,
      WAIT_MS,
    )
  },

  async 'written before power-on'({ guest, early }) {
    if (!early) return
    const finish = await guest.receive(A, early.len)
    const arrived = await finish()
    if (arrived !== early.sha256) throw new Error(`${early.len} bytes, written before power-on: ${arrived} arrived`)
    await bye(early.peer)
    await until(async () => !(await guest.hostOpen(A)), 'the guest sees the host close', WAIT_MS)
  },

  async 'open and close'({ host, guest }) {
    for (let i = 0; i < 2; i++) {
      const close = await guest.hold(A)
      await until(() => host.guestOpen(A), 'the host sees the guest open', WAIT_MS)
      await close()
      await until(async () => !(await host.guestOpen(A)), 'the host sees the guest close', WAIT_MS)
      const peer = await host.connect(A)
      await until(() => guest.hostOpen(A), 'the guest sees the host open', WAIT_MS)
      await bye(peer)
      await until(async () => !(await guest.hostOpen(A)), 'the guest sees the host close', WAIT_MS)
    }
  },

  async 'guest to host'(sides) {
    await withPeer(sides, A, async (peer) => {
      for (const [size, total] of SIZES) await toHost(sides, A, peer, total, size)
    })
  },

  async 'host to guest'(sides) {
    await withPeer(sides, A, async (peer) => {
      for (const [size, total] of SIZES) await toGuest(sides, A, peer, total, size)
    })
  },

  async 'both at once'(sides) {
    const [one, two] = [await sides.host.connect(A), await sides.host.connect(B)]
    await until(
      async () => (await sides.guest.hostOpen(A)) && (await sides.guest.hostOpen(B)),
      'the host is there',
      WAIT_MS,
    )
    await Promise.all([toHost(sides, A, one, MIB, 32_768), toGuest(sides, B, two, MIB, 32_768)])
    await Promise.all([bye(one), bye(two)])
  },

  async 'hot add and remove'(sides) {
    const { host, guest } = sides
    for (const name of [HOT, NEXT]) {
      await host.addPort(name, { id: 5 })
      await until(async () => (await guest.names()).includes(name), `the guest has ${name}`, WAIT_MS)
      const id = await guest.id(name)
      if (id !== 5) throw new Error(`${name} is port ${id} in the guest, not 5`)
      await talk(sides, name)
      // The second time, while the guest has it open.
      const close = name === NEXT ? await guest.hold(name) : undefined
      await host.removePort(name)
      await until(async () => !(await guest.names()).includes(name), `${name} goes from the guest`, WAIT_MS)
      await close?.()
    }
    await talk(sides, A)
  },

  async 'driver again'(sides) {
    await sides.guest.restartDriver()
    await CHECKS['ports and names']!(sides)
    for (const name of PORTS) await talk(sides, name)
  },

  async 'machine reset'(sides) {
    await sides.guest.resetMachine()
    await CHECKS['ports and names']!(sides)
    for (const name of PORTS) await talk(sides, name)
  },

  async 'nobody complained'(sides) {
    const all = sides.complaints()
    if (all.length > 0) throw new Error(all.join('; '))
    return Promise.resolve()
  },
}

/** A little each way. */
async function talk(sides: Sides, name: string): Promise<void> {
  await withPeer(sides, name, async (peer) => {
    await toHost(sides, name, peer, 10_000, 1000)
    await toGuest(sides, name, peer, 10_000, 1000)
  })
}

async function withPeer({ host, guest }: Sides, name: string, work: (peer: Socket) => Promise<void>): Promise<void> {
  const peer = await host.connect(name)
  await until(() => guest.hostOpen(name), `the guest sees the host open ${name}`, WAIT_MS)
  await work(peer)
  await bye(peer)
  await until(async () => !(await guest.hostOpen(name)), `the guest sees the host close ${name}`, WAIT_MS)
}

async function toHost({ guest }: Sides, name: string, peer: Socket, total: number, size: number): Promise<void> {
  const got = readBytes(peer, total, WAIT_MS)
  // What the guest says comes first: it knows why.
  got.catch(() => {})
  const sent = await guest.send(name, total, size)
  const arrived = createHash('sha256')
    .update(await got)
    .digest('hex')
  if (arrived !== sent) throw new Error(`${total} bytes in writes of ${size}, guest to host: ${sent} became ${arrived}`)
}

async function toGuest({ guest }: Sides, name: string, peer: Socket, total: number, size: number): Promise<void> {
  const finish = await guest.receive(name, total)
  const bytes = new Pattern().take(total)
  for (let at = 0; at < total; at += size) peer.write(bytes.subarray(at, at + size))
  const arrived = await finish()
  const sent = patternSha256(total)
  if (arrived !== sent) throw new Error(`${total} bytes in writes of ${size}, host to guest: ${sent} became ${arrived}`)
}

function bye(peer: Socket): Promise<void> {
  return new Promise((resolve) => peer.once('close', () => resolve()).destroy())
}
