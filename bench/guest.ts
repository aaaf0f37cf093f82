/** The driver half against the kernel's in one guest: as a character device through CUSE, and inside a program. */
import { makeSuite, type Case, type Suite } from './case.ts'
import { GuestRig } from './guest-rig.ts'
import { keepAwake } from './peer.ts'

const MIB = 1 << 20
const rate = (bytes: number, ns: number): number => bytes / 1e6 / (ns / 1e9)
/** What a character device is compared with is a C program on the kernel's driver; so it is for a Node program's stream. */
const DRIVERS = { cuse: 'character device,', inproc: 'stream of a Node program, compiled by then,' } as const
const sized = (size: number): string => (size >= MIB ? `${size / MIB} MiB` : `${size / 1024} KiB`)

/** Guest → host: the clock is the host peer's, from the first byte to the last. */
function writes(id: string, driver: 'cuse' | 'inproc', size: number, bytes: number): Case<GuestRig> {
  return {
    ids: [id],
    title: `${DRIVERS[driver]} guest writes of ${sized(size)}`,
    unit: 'MB/s',
    async run(rig, side) {
      await rig.warmUp(driver, 'source', size)
      const finish = await rig.peer(side === 'ours' ? driver : 'kernel', 'sink', bytes)
      if (side === 'ours' && driver === 'inproc') await rig.inProcess('source', bytes, size)
      else await rig.vmtest(side === 'ours' ? 'cuse' : 'kernel', 'source', bytes, size, 1, '--no-hash')
      const { ns } = await finish()
      return { [id]: rate(bytes, ns) }
    },
    ...(driver === 'cuse' && {
      async limit(rig: GuestRig) {
        const { ns } = await rig.vmtest('floor', 'source', bytes, size, 1, '--no-hash')
        return { [id]: rate(bytes, ns) }
      },
    }),
  }
}

/** Host → guest: the clock is the guest's. */
function reads(id: string, driver: 'cuse' | 'inproc', size: number, bytes: number): Case<GuestRig> {
  return {
    ids: [id],
    title: `${DRIVERS[driver]} guest reads of ${sized(size)}`,
    unit: 'MB/s',
    async run(rig, side) {
      await rig.warmUp(driver, 'sink', size)
      const finish = await rig.peer(side === 'ours' ? driver : 'kernel', 'source', bytes, size)
      const { ns } =
        side === 'ours' && driver === 'inproc'
          ? await rig.inProcess('sink', bytes, size)
          : await rig.vmtest(side === 'ours' ? 'cuse' : 'kernel', 'sink', bytes, size, '--no-hash')
      await finish()
      return { [id]: rate(bytes, ns) }
    },
    ...(driver === 'cuse' && {
      async limit(rig: GuestRig) {
        const { ns } = await rig.vmtest('floor', 'sink', bytes, size, '--no-hash')
        return { [id]: rate(bytes, ns) }
      },
    }),
  }
}

/** Round trips that the guest starts and the host peer echoes. */
function roundTrip(id: string, size: number, count: number): Case<GuestRig> {
  return {
    ids: [id],
    title: `character device, round trip of ${size} bytes`,
    unit: 'us',
    async run(rig, side) {
      await rig.warmUpTrips(size)
      const finish = await rig.peer(side === 'ours' ? 'cuse' : 'kernel', 'echo')
      const { p50 } = await rig.vmtest(side === 'ours' ? 'cuse' : 'kernel', 'ping', count, size)
      await finish()
      return { [id]: p50 / 1e3 }
    },
    async limit(rig) {
      const { p50 } = await rig.vmtest('floor', 'ping', count, size)
      return { [id]: p50 / 1e3 }
    },
  }
}

/**
 * The guest's processors go to sleep in between: the host's must not, for either side. Not where they hardly do: one
 * run in seven is then near a tenth of the others, of our side (docs/performance.md).
 */
function awake(measured: Case<GuestRig>): Case<GuestRig> {
  return {
    ...measured,
    run: (rig, side) => keepAwake(() => measured.run(rig, side)),
    ...(measured.limit && { limit: (rig: GuestRig) => keepAwake(() => measured.limit!(rig)) }),
  }
}

const BYTES = 128 * MIB
/** A quarter of a second of it, or more. */
const INPROC_BYTES = 256 * MIB

export const GUEST: Suite = makeSuite(
  [
    awake(writes('guest.inproc.write', 'inproc', 64 << 10, INPROC_BYTES)),
    awake(reads('guest.inproc.read', 'inproc', 64 << 10, INPROC_BYTES)),
    writes('guest.cuse.write', 'cuse', 64 << 10, BYTES),
    writes('guest.cuse.write.1m', 'cuse', MIB, BYTES),
    reads('guest.cuse.read', 'cuse', 64 << 10, BYTES),
    reads('guest.cuse.read.1m', 'cuse', MIB, BYTES),
    awake(roundTrip('guest.cuse.rtt', 64, 1000)),
  ],
  () => GuestRig.start(),
)
