/** What is measured end to end, in a guest: each case runs once on one side and gives a figure. */
import { vmtest } from '../lab/vmtest.ts'
import { makeSuite, type Case, type Figures, type Side, type Suite } from './case.ts'
import { cpuSeconds } from './cpu.ts'
import { keepAwake } from './peer.ts'
import { Rig } from './rig.ts'

const MIB = 1 << 20
/** Enough of them that a clock tick is nothing. */
const CPU_BYTES = 512 * MIB
/** So many that the warm-up run leaves our code compiled: the first thousand are measurably slower at the p99. */
const TRIPS = 3000
const rate = (bytes: number, ns: number): number => bytes / 1e6 / (ns / 1e9)

/** Guest → host: the clock is the host peer's, from the first byte to the last. */
async function send(rig: Rig, side: Side, bytes: number, size: number): Promise<number> {
  const finish = await rig.peer(side, 'sink', bytes)
  await rig.vmtest(side, 'source', bytes, size, 1, '--no-hash')
  return rate(bytes, (await finish()).ns)
}

/** Host → guest: the clock is the guest's. */
async function receive(rig: Rig, side: Side, bytes: number, size: number): Promise<number> {
  const finish = await rig.peer(side, 'source', bytes, size)
  const { ns } = await rig.vmtest(side, 'sink', bytes, '64k', '--no-hash')
  await finish()
  return rate(bytes, ns)
}

function guestToHost(id: string, size: number, bytes: number): Case<Rig> {
  return {
    ...{ ids: [id], title: `guest writes of ${size >= 1024 ? `${size / 1024} KiB` : `${size} bytes`}`, unit: 'MB/s' },
    run: async (rig, side) => ({ [id]: await send(rig, side, bytes, size) }),
  }
}

/** Pages that the guest gives away: it copies nothing. */
function guestGives(id: string, size: number, bytes: number): Case<Rig> {
  return {
    ...{ ids: [id], title: `guest gives pages away, ${size / 1024} KiB at a time`, unit: 'MB/s' },
    async run(rig, side) {
      const finish = await rig.peer(side, 'sink', bytes)
      await rig.vmtest(side, 'vmsplice', bytes, size, 1, '--gift')
      return { [id]: rate(bytes, (await finish()).ns) }
    },
    /** What the guest spends on its pages alone. */
    async limit(rig) {
      const { ns } = await vmtest(rig.machine, 'vmsplice', ['/dev/null', bytes, size, 1, '--gift'], 120_000)
      return { [id]: rate(bytes, ns) }
    },
  }
}

function hostToGuest(id: string, size: number, bytes: number): Case<Rig> {
  return {
    ...{ ids: [id], title: `host writes of ${size / 1024} KiB`, unit: 'MB/s' },
    run: async (rig, side) => ({ [id]: await receive(rig, side, bytes, size) }),
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
      const { p50, p99 } = await keepAwake(() => rig.vmtest(side, 'ping', count, size))
      await finish()
      return { [`${id}.p50`]: p50 / 1e3, [`${id}.p99`]: p99 / 1e3 }
    },
  }
}

/** Processor time of the host: QEMU's, and where the device is ours that of its process. The peer is not counted. */
function cpu(id: string, title: string, move: (rig: Rig, side: Side) => Promise<number>): Case<Rig> {
  return {
    ...{ ids: [id], title, unit: 's/GB' },
    async run(rig, side): Promise<Figures> {
      const pids = [rig.machine.pid, ...(side === 'ours' ? [rig.devicePid] : [])]
      const used = (): number => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
      const before = used()
      await move(rig, side)
      return { [id]: (used() - before) / (CPU_BYTES / 1e9) }
    },
  }
}

/** The console's output: the tty layer asks for it in small pieces, and waits for each. */
function console(id: string, bytes: number): Case<Rig> {
  return {
    ...{ ids: [id], title: 'console output, hvc', unit: 'MB/s' },
    async run(rig, side) {
      const finish = await rig.consolePeer(side, bytes)
      await rig.writeConsole(side, bytes)
      return { [id]: rate(bytes, (await finish()).ns) }
    },
  }
}

export const END_TO_END: Suite = makeSuite(
  [
    guestToHost('e2e.g2h.32k', 32 << 10, 64 * MIB),
    guestToHost('e2e.g2h.4k', 4 << 10, 32 * MIB),
    guestToHost('e2e.g2h.64b', 64, 4 * MIB),
    guestGives('e2e.g2h.splice', MIB, 64 * MIB),
    hostToGuest('e2e.h2g.bulk', 64 << 10, 64 * MIB),
    roundTrip('e2e.rtt.1b', 1, TRIPS),
    roundTrip('e2e.rtt.64b', 64, TRIPS),
    cpu('e2e.cpu.g2h', 'processor time, guest writes of 32 KiB', (rig, side) => send(rig, side, CPU_BYTES, 32 << 10)),
    cpu('e2e.cpu.h2g', 'processor time, host writes of 64 KiB', (rig, side) => receive(rig, side, CPU_BYTES, 64 << 10)),
    console('e2e.hvc', 4 * MIB),
  ],
  ({ vectors }) => Rig.start('device', vectors),
)

/** What a keeper costs while nothing happens to the device process: with one (`ours`) against without. */
export const KEEPER: Suite = makeSuite(
  [
    guestToHost('keeper.g2h.32k', 32 << 10, 64 * MIB),
    guestToHost('keeper.g2h.64b', 64, 4 * MIB),
    hostToGuest('keeper.h2g.bulk', 64 << 10, 64 * MIB),
    roundTrip('keeper.rtt.1b', 1, 1000),
  ],
  ({ vectors }) => Rig.start('unkept', vectors),
)

/** What a vector for each queue gains (`ours`) against two for all, with 31 ports. */
export const VECTORS: Suite = makeSuite(
  [
    guestToHost('vectors.g2h.64b', 64, 4 * MIB),
    hostToGuest('vectors.h2g.bulk', 64 << 10, 64 * MIB),
    roundTrip('vectors.rtt.64b', 64, TRIPS),
  ],
  () => Rig.start('shared'),
)
