/**
 * Ring level: our driver on our device in one process, with no system call and nobody else. `ring.small` and `ring.4k`
 * are both halves whole: port, chardev, queue, notify through the function's registers, MSI-X back. `ring.queue.*` are
 * the two ends of one queue and nothing else, to tell what the rest costs.
 */
import type { Chardev, ChardevEnd } from '../src/chardev/chardev.ts'
import { LoopbackMachine } from '../src/device/attach/loopback.ts'
import { ConsoleDevice } from '../src/device/console.ts'
import { VirtioPci } from '../src/device/pci/virtio-pci.ts'
import { attachLoopback } from '../src/driver/attach/loopback.ts'
import { ConsoleDriver } from '../src/driver/console.ts'
import { GuestMemory } from '../src/mem/guest-memory.ts'
import type { Iovec } from '../src/mem/iovec.ts'
import { makeSuite, type BenchRig, type Case, type Suite } from './case.ts'
import { BareQueue, copyRate, touchRate } from './ring-queue.ts'
import { Tap } from './tap.ts'

const SMALL = 64
const BIG = 4096
/** Chains in flight: a queue of the usual size, full. */
const CHAINS = 128

/** A program that fills what it sends from memory of its own: the one copy. */
class CopyingTap extends Tap {
  readonly #source = new Uint8Array(BIG)

  override readv(list: Iovec): number {
    const bytes = super.readv(list)
    if (bytes > 0) list.bytes[0]!.set(this.#source, list.offset[0])
    return bytes
  }
}

interface Pipe {
  guest: Tap
  host: Tap
}

class Rig implements BenchRig {
  readonly banner = `Node ${process.version}, both halves in one process`
  readonly queue: BareQueue = new BareQueue(CHAINS, BIG)
  readonly #pipes: Readonly<Record<number, Pipe>>

  static async start(): Promise<Rig> {
    const memory = new GuestMemory()
    const device = new ConsoleDevice({ maxPorts: 3, queueSize: CHAINS, defer: setImmediate })
    const machine = new LoopbackMachine(new VirtioPci(device, memory, { vectors: device.queueCount + 1 }), memory)
    const { transport, pool } = attachLoopback(machine)
    const buffers = { transmitBuffers: CHAINS, transmitLen: BIG }
    const driver = new ConsoleDriver(transport, pool, { defer: setImmediate, ...buffers })
    const hosts: Tap[] = []
    const open = (end: ChardevEnd): Promise<Chardev> => Promise.resolve(hosts[hosts.push(new Tap(end)) - 1]!)
    for (const id of [1, 2])
      await device.addPort(
        { id, name: undefined, console: false, policy: 'block', buffer: 0, onClose: undefined, drainMs: 0 },
        open,
      )
    driver.start()
    while (!driver.port(1)?.hostOpen || !driver.port(2)?.hostOpen) await new Promise((resolve) => setImmediate(resolve))
    const small = driver.port(1)!.attach((end) => new Tap(end)) as Tap
    const big = driver.port(2)!.attach((end) => new CopyingTap(end)) as Tap
    return new Rig({ [SMALL]: { guest: small, host: hosts[0]! }, [BIG]: { guest: big, host: hosts[1]! } })
  }

  private constructor(pipes: Readonly<Record<number, Pipe>>) {
    this.#pipes = pipes
  }

  /** Chains a millisecond, from program to program. */
  async rate(chains: number, size: number): Promise<number> {
    const { guest, host } = this.#pipes[size]!
    const start = performance.now()
    const all = host.receive(chains * size)
    guest.send(chains * size, size)
    await all
    return chains / (performance.now() - start)
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

/** `rate` in chains a millisecond. */
function ringCase(
  id: string,
  title: string,
  size: number,
  rate: (rig: Rig) => number | Promise<number>,
  most: () => number,
): Case<Rig> {
  const figure = (perMs: number) => ({ [id]: size === SMALL ? perMs / 1e3 : (perMs * size) / 1e6 })
  return {
    ...{ ids: [id], title, unit: size === SMALL ? 'M/s' : 'GB/s', sides: ['ours'] },
    run: async (rig) => figure(await rate(rig)),
    limit: () => Promise.resolve(figure(most())),
  }
}

/** The limit of a small chain is what no ring can do without, that of 4 KiB one copy of them. */
export const RING: Suite = makeSuite(
  [
    ringCase('ring.small', 'chains of 64 bytes, both halves', SMALL, (rig) => rig.rate(1e6, SMALL), touchRate),
    ringCase('ring.4k', 'chains of 4 KiB, one copy, both halves', BIG, (rig) => rig.rate(4e5, BIG), copyRate),
    ringCase('ring.queue.small', 'the same, the queue alone', SMALL, (rig) => rig.queue.rate(2e6, SMALL), touchRate),
    ringCase('ring.queue.4k', 'the same, the queue alone', BIG, (rig) => rig.queue.rate(4e5, BIG), copyRate),
  ],
  () => Rig.start(),
)
