/**
 * One stock guest with both devices plugged in, ours and QEMU's own, each with a port and a console that lead to
 * unix sockets: whatever is measured on one is measured on the other in the same run.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureKernel, VIRTIO_MODULES } from '../lab/fetch/kernel.ts'
import { ensureQemu } from '../lab/fetch/qemu.ts'
import type { GuestOptions } from '../lab/initramfs.ts'
import { Machine } from '../lab/machine.ts'
import { portNode } from '../lab/ports.ts'
import { vmtest, type VmtestName, type VmtestResults } from '../lab/vmtest.ts'
import { startDevice, type StartedDevice } from '../src/client/start.ts'
import type { BenchRig, Side } from './case.ts'
import { peerProgram, startPeer, type PeerResult } from './peer.ts'
import { stopDevice } from './wait.ts'

const MEMORY = '512M'
/** One for each queue of 31 ports and of control, and one for changes of the configuration. */
const VECTORS_ALL = 65
const ADDRESS = '10.0.2.100:1234'
const NETWORK_GUEST: GuestOptions = {
  modules: [...VIRTIO_MODULES, 'virtio_net'],
  init: 'ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0\n',
}

export class Rig implements BenchRig {
  readonly machine: Machine
  readonly banner: string
  /** Ours, and where they are ours too, theirs. */
  readonly #devices: readonly StartedDevice[]
  readonly #folder: string
  readonly #peer: string
  readonly #socket: Record<Side, string>
  /** Character device in the guest. */
  readonly #node: Record<Side, string>

  /**
   * `theirs`: QEMU's own device, or a connection over its user networking, which has no console. Or a device of ours
   * like the other one without a console: `unkept` without a keeper, which the other has then; `shared` with two
   * vectors where the other has one for each queue. `vectors`: the same for both.
   */
  static async start(theirs: 'device' | 'usernet' | 'unkept' | 'shared' = 'device', vectors?: number): Promise<Rig> {
    const network = theirs === 'usernet'
    const qemu = await ensureQemu()
    const kernel = await ensureKernel('6.1')
    const peer = await peerProgram()
    const folder = await mkdtemp(join(tmpdir(), 'vmchannel-bench-'))
    const ours = join(folder, 'ours.sock')
    const socket = join(folder, 'theirs.sock')
    const devices: StartedDevice[] = []
    const start = async (name: string, ports: string[], keeper: boolean, own = vectors): Promise<string[]> => {
      const device = await startDevice(
        {
          stateDir: join(folder, name),
          vms: [{ ports, ...(own === undefined ? {} : { vectors: own }) }],
          exitWith: 'parent',
          logLevel: 'warn',
        },
        { keeper },
      )
      devices.push(device)
      return device.vms[0]!.qemuArgs
    }
    try {
      const ports = [`unix:${ours},name=bench.ours`, `unix:${consoleOf(ours)},name=hvc.ours,console=on`]
      const ourArgs = await start('ours', ports, theirs === 'unkept', theirs === 'shared' ? VECTORS_ALL : vectors)
      const theirArgs = network
        ? networkArgs(socket)
        : theirs === 'device'
          ? deviceArgs(socket, vectors)
          : await start('theirs', [`unix:${socket},name=bench.qemu`], false, theirs === 'shared' ? 2 : vectors)
      const machine = await Machine.boot({
        qemu: qemu.path,
        kernel,
        memory: MEMORY,
        machineType: 'q35,memory-backend=mem0',
        args: [...['-object', `memory-backend-memfd,id=mem0,size=${MEMORY},share=on`], ...ourArgs, ...theirArgs],
        ...(network ? { guest: NETWORK_GUEST } : {}),
      })
      const nodes = {
        ours: await portNode(machine, 'bench.ours'),
        qemu: network ? `tcp:${ADDRESS}` : await portNode(machine, 'bench.qemu'),
      }
      return new Rig(machine, devices, folder, peer, { ours, qemu: socket }, nodes, qemu.version, kernel.release)
    } catch (error) {
      for (const device of devices) await stopDevice(device, folder)
      throw error
    }
  }

  /** Process id of our device. */
  get devicePid(): number {
    return this.#devices[0]!.pid
  }

  private constructor(
    machine: Machine,
    devices: readonly StartedDevice[],
    folder: string,
    peer: string,
    socket: Record<Side, string>,
    node: Record<Side, string>,
    qemuVersion: string,
    kernelVersion: string,
  ) {
    this.machine = machine
    this.#devices = devices
    this.#folder = folder
    this.#peer = peer
    this.#socket = socket
    this.#node = node
    this.banner = `QEMU ${qemuVersion}, guest Linux ${kernelVersion}, TCG`
  }

  /** Starts the host's end of a port: `sink BYTES`, `source BYTES SIZE` or `echo`. Resolves when it is connected. */
  peer(side: Side, mode: 'sink' | 'source' | 'echo', ...words: number[]): Promise<() => Promise<PeerResult>> {
    return startPeer(this.#peer, this.#socket[side], mode, ...words)
  }

  /** What a program in the guest opens. */
  node(side: Side): string {
    return this.#node[side]
  }

  consolePeer(side: Side, bytes: number): Promise<() => Promise<PeerResult>> {
    return startPeer(this.#peer, consoleOf(this.#socket[side]), 'sink', bytes)
  }

  /** Writes to the console's terminal in blocks of 4 KiB, which must not change a byte. */
  async writeConsole(side: Side, bytes: number): Promise<void> {
    const node = await portNode(this.machine, `hvc.${side}`)
    const state = await this.machine.sh(`cat /sys/kernel/debug/virtio-ports/${node.slice('/dev/'.length)}`)
    // Terminals are numbered from 0, the driver's consoles from 1.
    const tty = `/dev/hvc${Number(/console_vtermno: (\d+)/.exec(state)?.[1]) - 1}`
    await this.machine.sh(`exec 3<>${tty}; stty raw -echo <&3; vmtest source ${tty} ${bytes} 4k 1 --no-hash`, {
      timeout: 120_000,
    })
  }

  vmtest<Name extends VmtestName>(side: Side, name: Name, ...words: (string | number)[]): Promise<VmtestResults[Name]> {
    return vmtest(this.machine, name, [this.#node[side], ...words], 120_000)
  }

  async close(): Promise<void> {
    await this.machine.close()
    for (const device of this.#devices) await stopDevice(device, this.#folder)
  }
}

function deviceArgs(socket: string, vectors: number | undefined): string[] {
  return [
    ...['-device', `virtio-serial-pci${vectors === undefined ? '' : `,vectors=${vectors}`}`],
    ...['-chardev', `socket,id=theirs,path=${socket},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=theirs,name=bench.qemu'],
    ...['-chardev', `socket,id=hvc,path=${consoleOf(socket)},server=on,wait=off`],
    ...['-device', 'virtconsole,chardev=hvc,name=hvc.qemu'],
  ]
}

function networkArgs(socket: string): string[] {
  return [
    ...['-chardev', `socket,id=theirs,path=${socket},server=on,wait=off`],
    ...['-netdev', `user,id=net,restrict=on,guestfwd=tcp:${ADDRESS}-chardev:theirs`],
    ...['-device', 'virtio-net-pci,netdev=net,romfile='],
  ]
}

/** The console's socket lies beside the port's. */
function consoleOf(socket: string): string {
  return socket.replace(/sock$/, 'console.sock')
}
