/** What is measured end to end, in a guest: each case runs once on one side and gives a figure. */
import { makeSuite, type Case, type Suite } from './case.ts'
import { Rig } from './rig.ts'

const MIB = 1 << 20

/** Guest → host: the clock is the host peer's, from the first byte to the last. */
function guestToHost(id: string, size: number, bytes: number): Case<Rig> {
  return {
    ids: [id],
    title: `guest writes of ${size >= 1024 ? `${size / 1024} KiB` : `${size} bytes`}`,
    unit: 'MB/s',
    async run(rig, side) {
      const finish = await rig.peer(side, 'sink', bytes)
      await rig.vmtest(side, 'source', bytes, size, 1, '--no-hash')
      const { ns } = await finish()
      return { [id]: bytes / 1e6 / (ns / 1e9) }
    },
  }
}

/** Host → guest: the clock is the guest's. */
function hostToGuest(id: string, size: number, bytes: number): Case<Rig> {
  return {
    ids: [id],
    title: `host writes of ${size / 1024} KiB`,
    unit: 'MB/s',
    async run(rig, side) {
      const finish = await rig.peer(side, 'source', bytes, size)
      const { ns } = await rig.vmtest(side, 'sink', bytes, '64k', '--no-hash')
      await finish()
      return { [id]: bytes / 1e6 / (ns / 1e9) }
    },
  }
}

/** Round trips that the guest starts and the host peer echoes. */
function roundTrip(id: string, size: number, count: number): Case<Rig> {
  return {
    ids: [`${id}.p50`, `${id}.p99`],
    title: `round trip of ${size} byte${size === 1 ? '' : 's'}`,
    unit: 'us',
    async run(rig, side) {
      const finish = await rig.peer(side, 'echo')
      const { p50, p99 } = await rig.vmtest(side, 'ping', count, size)
      await finish()
      return { [`${id}.p50`]: p50 / 1e3, [`${id}.p99`]: p99 / 1e3 }
    },
  }
}

export const END_TO_END: Suite = makeSuite(
  [
    guestToHost('e2e.g2h.32k', 32 << 10, 64 * MIB),
    guestToHost('e2e.g2h.4k', 4 << 10, 32 * MIB),
    hostToGuest('e2e.h2g.bulk', 64 << 10, 64 * MIB),
    roundTrip('e2e.rtt.1b', 1, 1000),
    roundTrip('e2e.rtt.64b', 64, 1000),
  ],
  () => Rig.start(),
)
