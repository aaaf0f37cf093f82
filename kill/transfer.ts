/**
 * Bytes through one port, compared. On sockets each byte comes once; on pipes and ptys the rest is what was counted.
 */

import type { ModelPort, Rig } from './rig.ts'

/** What fits into one buffer of the guest's. */
const PIECE = 3000
const SETTLE_MS = 40

export async function hostToGuest(rig: Rig, id: number, len: number): Promise<void> {
  const port = rig.port(id)
  const bytes = Buffer.from(rig.random.bytes(len))
  const { driver } = rig
  const written = port.peer!.write(bytes)
  written.catch(() => {})
  await settled(
    rig,
    port,
    `${len} bytes to the guest by port ${id}`,
    () => driver.bytes(id).length >= len,
    (counted) => driver.bytes(id).length + counted >= len,
    'hostToGuestDropped',
  )
  await written
  const got = driver.bytes(id)
  driver.inbox.delete(id)
  if (got.equals(bytes)) return
  const lost = len - got.length
  if (!port.lossy || lost < 0 || lost > (await counted(rig, id, 'hostToGuestDropped')) || !isCut(bytes, got))
    throw new Error(`port ${id}: ${different(bytes, got)} on the way to the guest`)
}

export async function guestToHost(rig: Rig, id: number, len: number): Promise<void> {
  const port = rig.port(id)
  const bytes = Buffer.from(rig.random.bytes(len))
  const { driver } = rig
  const what = `${len} bytes to the host by port ${id}`
  for (let at = 0; at < len; at += PIECE) {
    await rig.until(() => driver.canSend(id), what)
    driver.send(id, bytes.subarray(at, at + PIECE))
  }
  const peer = port.peer!
  await settled(
    rig,
    port,
    what,
    () => peer.received.length >= len && driver.idle(id),
    () => false,
    'guestToHostRepeated',
  )
  const got = peer.received
  peer.received = Buffer.alloc(0)
  if (got.equals(bytes)) return
  const more = got.length - len
  if (!port.lossy || more < 0 || more > (await counted(rig, id, 'guestToHostRepeated')) || !isCut(got, bytes))
    throw new Error(`port ${id}: ${different(bytes, got)} on the way to the host`)
}

type Counter = 'hostToGuestDropped' | 'guestToHostRepeated'

async function settled(
  rig: Rig,
  port: ModelPort,
  what: string,
  done: () => boolean,
  doneWith: (counted: number) => boolean,
  counter: Counter,
): Promise<void> {
  if (!port.lossy) return rig.until(done, what)
  let lost = 0
  const over = new AbortController()
  const look = async (): Promise<void> => {
    while (!over.signal.aborted) {
      if (rig.mayDie()) lost = await counted(rig, port.id, counter).catch(() => 0)
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
    }
  }
  const looking = look()
  try {
    await rig.until(() => done() || (lost > 0 && doneWith(lost)), what)
    // What was counted may still come.
    if (lost > 0) await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  } catch (error) {
    const got = counter === 'hostToGuestDropped' ? rig.driver.bytes(port.id).length : port.peer!.received.length
    throw new Error(`${got} bytes came, ${lost} were counted: ${String(error)}`, { cause: error })
  } finally {
    over.abort()
    await looking
  }
}

async function counted(rig: Rig, id: number, counter: Counter): Promise<number> {
  const stats = await rig.control((client) => client.request('port.stats', { port: id }))
  return stats[0]!.counters[counter] - rig.counters.get(id)![counter]
}

/** Whether `part` is `whole` without one piece. */
function isCut(whole: Buffer, part: Buffer): boolean {
  let same = 0
  while (same < part.length && whole[same] === part[same]) same++
  return whole.subarray(same + whole.length - part.length).equals(part.subarray(same))
}

function different(wanted: Buffer, got: Buffer): string {
  let same = 0
  while (same < wanted.length && wanted[same] === got[same]) same++
  return `${got.length} bytes instead of ${wanted.length}, the first ${same} right,`
}
