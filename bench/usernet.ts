/**
 * The old way: what vmchannel was before virtio-serial had ports, a connection over QEMU's user networking that
 * `guestfwd` leads to a chardev. The same guest, the same programs at both ends; `qemu` is the network, `ours` our port.
 */
import { startVmtest } from '../lab/vmtest.ts'
import { makeSuite, type Case, type Side, type Suite } from './case.ts'
import { keepAwake } from './peer.ts'
import { Rig } from './rig.ts'

const MIB = 1 << 20
const rate = (bytes: number, ns: number): number => bytes / 1e6 / (ns / 1e9)

function usernet(
  id: string,
  title: string,
  unit: 'MB/s' | 'us',
  run: (rig: Rig, side: Side) => Promise<number>,
): Case<Rig> {
  return { ids: [id], title, unit, run: async (rig, side) => ({ [id]: await run(rig, side) }) }
}

export const USERNET: Suite = makeSuite(
  [
    usernet('usernet.g2h', 'guest writes of 32 KiB, against slirp', 'MB/s', async (rig, side) => {
      const bytes = 32 * MIB
      const finish = await rig.peer(side, 'sink', bytes)
      await rig.vmtest(side, 'source', bytes, '32k', 1, '--no-hash')
      return rate(bytes, (await finish()).ns)
    }),
    usernet('usernet.h2g', 'host writes of 64 KiB, against slirp', 'MB/s', async (rig, side) => {
      const bytes = 32 * MIB
      // The network loses what comes while nobody in the guest is connected.
      const sink = await startVmtest(rig.machine, 'sink', [rig.node(side), bytes, '64k', '--no-hash'])
      const finish = await rig.peer(side, 'source', bytes, 64 << 10)
      const { ns } = await sink.result(120_000)
      await finish()
      return rate(bytes, ns)
    }),
    usernet('usernet.rtt', 'round trip of 64 bytes, against slirp', 'us', async (rig, side) => {
      const finish = await rig.peer(side, 'echo')
      const { p50 } = await keepAwake(() => rig.vmtest(side, 'ping', 500, 64))
      await finish()
      return p50 / 1e3
    }),
  ],
  () => Rig.start('usernet'),
)
