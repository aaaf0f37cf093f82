/** One transfer over a port, either way, with a pattern that both ends know: every byte is compared, none may be more. */

import type { Socket } from 'node:net'
import { once } from 'node:events'
import { Pattern, patternSha256 } from '../lab/pattern.ts'
import { startVmtest, vmtest } from '../lab/vmtest.ts'
import type { Random } from '../fuzz/random.ts'
import type { SoakRig } from './rig.ts'

/** Odd sizes on purpose. */
const BLOCKS = [1, 7, 64, 511, 4096, 4097, 32_768, 65_536, 200_000]
const CALLS_MAX = 600
const BYTES_MAX = 3 << 20
const TIMEOUT_MS = 180_000

export interface Transfer {
  direction: 'up' | 'down'
  bytes: number
}

export async function transfer(rig: SoakRig, r: Random, node: string, socket: Socket): Promise<Transfer> {
  const block = r.pick(BLOCKS)
  const bytes = 1 + r.below(Math.min(BYTES_MAX, block * CALLS_MAX))
  const seed = 1 + r.below(1000)
  return r.chance(50) ? up(rig, node, socket, bytes, block, seed) : down(rig, r, node, socket, bytes, block)
}

/** Guest to host. */
async function up(
  rig: SoakRig,
  node: string,
  socket: Socket,
  bytes: number,
  block: number,
  seed: number,
): Promise<Transfer> {
  const pattern = new Pattern(seed)
  let got = 0
  let wrong: Error | undefined
  const finished = new Promise<void>((resolve) => {
    const take = (chunk: Buffer): void => {
      if (!wrong && !pattern.take(chunk.length).equals(chunk))
        wrong = new Error(`guest to host: wrong within ${chunk.length} bytes after ${got}`)
      got += chunk.length
      if (got >= bytes || wrong) {
        socket.off('data', take)
        resolve()
      }
    }
    socket.on('data', take)
  })
  await vmtest(rig.machine, 'source', [node, bytes, block, seed], TIMEOUT_MS)
  await within(finished, `guest to host: ${bytes} bytes in writes of ${block}`, () => `${got} came`)
  if (wrong) throw wrong
  if (got !== bytes) throw new Error(`guest to host: ${got} bytes instead of ${bytes}`)
  return { direction: 'up', bytes }
}

/** Host to guest; the guest's program knows the pattern of seed 1 by its checksum. */
async function down(
  rig: SoakRig,
  r: Random,
  node: string,
  socket: Socket,
  bytes: number,
  block: number,
): Promise<Transfer> {
  const sink = await startVmtest(rig.machine, 'sink', [node, bytes, r.pick([1, 100, 4096, 65_536, 300_000])])
  const pattern = new Pattern()
  for (let left = bytes; left > 0;) {
    const chunk = pattern.take(Math.min(left, block))
    left -= chunk.length
    if (!socket.write(chunk)) await within(once(socket, 'drain'), 'host to guest', () => `${left} left`)
  }
  const result = await sink.result(TIMEOUT_MS)
  if (result.bytes !== bytes || result.sha256 !== patternSha256(bytes))
    throw new Error(`host to guest: ${result.bytes} of ${bytes} bytes, checksum ${result.sha256}`)
  return { direction: 'down', bytes }
}

async function within<T>(work: Promise<T>, what: string, state: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no end in ${TIMEOUT_MS / 1000} s, ${state()}`)), TIMEOUT_MS)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
