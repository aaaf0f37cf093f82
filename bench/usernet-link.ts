/**
 * vmchannel itself over user networking (transport=usernet, `vmchannel guest --usernet`, /dev/vmchN) in the place of
 * QEMU's device: the same port of the same device process, once over our PCI device and the kernel's driver, once over
 * frames, slirp and our driver half. The same guest, the same programs at both ends.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureKernel } from '../lab/fetch/kernel.ts'
import { ensureQemu } from '../lab/fetch/qemu.ts'
import { codeDisk, GUEST_COMMAND, nodeGuest, type CodeDisk } from '../lab/guest-image.ts'
import { Machine } from '../lab/machine.ts'
import { portNode } from '../lab/ports.ts'
import { vmtest, type VmtestName, type VmtestResults } from '../lab/vmtest.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import { USERNET_GUEST } from '../src/usernet/place.ts'
import { makeSuite, type BenchRig, type Case, type Side, type Suite } from './case.ts'
import { keepAwake, peerProgram, startPeer, type PeerResult } from './peer.ts'
import { stopDevice } from './wait.ts'

const MIB = 1 << 20
const MEMORY = '1G'
const PORT: Readonly<Record<Side, string>> = { ours: 'bench.ours', qemu: 'bench.usernet' }
const rate = (bytes: number, ns: number): number => bytes / 1e6 / (ns / 1e9)

class LinkRig implements BenchRig {
  readonly banner: string
  readonly #machine: Machine
  readonly #device: StartedDevice
  readonly #folder: string
  readonly #disk: CodeDisk
  readonly #peer: string
  readonly #nodes: Record<Side, string>

  static async start(): Promise<LinkRig> {
    const [qemu, kernel, peer] = await Promise.all([ensureQemu(), ensureKernel('6.1'), peerProgram()])
    const guest = await nodeGuest({ modules: ['virtio_net'] })
    const folder = await mkdtemp(join(tmpdir(), 'vmchannel-bench-'))
    const port = (side: Side): string => `unix:${join(folder, side)},name=${PORT[side]}`
    const device = await startDevice({
      stateDir: join(folder, 'state'),
      vms: [
        { name: 'pci', ports: [port('ours')] },
        { name: 'net', transport: 'usernet', ports: [port('qemu')] },
      ],
      exitWith: 'parent',
      logLevel: 'warn',
    })
    const disk = await codeDisk()
    let machine: Machine | undefined
    try {
      machine = await Machine.boot({
        ...{ qemu: qemu.path, kernel, guest, memory: MEMORY, cpus: 2, machineType: 'q35,memory-backend=mem0' },
        args: [
          ...['-object', `memory-backend-memfd,id=mem0,size=${MEMORY},share=on`],
          ...[...disk.args, ...device.vms.flatMap(({ qemuArgs }) => qemuArgs)],
        ],
      })
      await machine.sh(`ip link set eth0 up; ip addr add ${USERNET_GUEST}/24 dev eth0`)
      const job = machine.spawn(`exec ${GUEST_COMMAND} --usernet`)
      const [, node = ''] = await job.waitForOutput(/: (\/dev\/vmch\d+) /, 120_000)
      const nodes = { ours: await portNode(machine, PORT.ours), qemu: node }
      const banner = `QEMU ${qemu.version}, guest Linux ${kernel.release} with 2 CPUs, TCG; qemu: vmchannel over usernet`
      return new LinkRig({ machine, device, folder, disk, peer, nodes, banner })
    } catch (error) {
      await machine?.close()
      disk.remove()
      await stopDevice(device, folder)
      throw error
    }
  }

  private constructor(parts: {
    machine: Machine
    device: StartedDevice
    folder: string
    disk: CodeDisk
    peer: string
    nodes: Record<Side, string>
    banner: string
  }) {
    this.#machine = parts.machine
    this.#device = parts.device
    this.#folder = parts.folder
    this.#disk = parts.disk
    this.#peer = parts.peer
    this.#nodes = parts.nodes
    this.banner = parts.banner
  }

  peer(side: Side, mode: 'sink' | 'source' | 'echo', ...words: number[]): Promise<() => Promise<PeerResult>> {
    return startPeer(this.#peer, join(this.#folder, side), mode, ...words)
  }

  vmtest<Name extends VmtestName>(side: Side, name: Name, ...words: (string | number)[]): Promise<VmtestResults[Name]> {
    return vmtest(this.#machine, name, [this.#nodes[side], ...words], 120_000)
  }

  async close(): Promise<void> {
    await this.#machine.close()
    this.#disk.remove()
    await stopDevice(this.#device, this.#folder)
  }
}

function link(
  name: string,
  title: string,
  unit: 'MB/s' | 'us',
  run: (rig: LinkRig, side: Side) => Promise<number>,
): Case<LinkRig> {
  const id = `usernet.link.${name}`
  return {
    ids: [id],
    title: `${title}, against transport=usernet`,
    unit,
    run: async (rig, side) => ({ [id]: await run(rig, side) }),
  }
}

const BYTES = 16 * MIB

export const USERNET_LINK: Suite = makeSuite(
  [
    link('g2h', 'guest writes of 32 KiB', 'MB/s', async (rig, side) => {
      const finish = await rig.peer(side, 'sink', BYTES)
      await rig.vmtest(side, 'source', BYTES, '32k', 1, '--no-hash')
      return rate(BYTES, (await finish()).ns)
    }),
    link('h2g', 'host writes of 64 KiB', 'MB/s', async (rig, side) => {
      const finish = await rig.peer(side, 'source', BYTES, 64 << 10)
      const { ns } = await rig.vmtest(side, 'sink', BYTES, '64k', '--no-hash')
      await finish()
      return rate(BYTES, ns)
    }),
    link('rtt', 'round trip of 64 bytes', 'us', async (rig, side) => {
      const finish = await rig.peer(side, 'echo')
      const { p50 } = await keepAwake(() => rig.vmtest(side, 'ping', 300, 64))
      await finish()
      return p50 / 1e3
    }),
  ],
  () => LinkRig.start(),
)
