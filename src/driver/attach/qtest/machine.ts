/**
 * A QEMU without a guest (`-accel qtest`), whose processor and memory are this process: makes the memory, listens for
 * QEMU, and attaches our driver to virtio devices in it. Who starts QEMU (tests, bench) adds `args` to its command line
 * and lets it inherit `ram.fd`.
 *
 *     const machine = new QtestMachine({ folder })
 *     spawn(qemu, [...machine.args(3), '-device', 'virtio-serial-pci,addr=4'], { stdio: [0, 1, 2, machine.ram.fd] })
 *     await machine.ready()
 *     const { transport, pool } = machine.attach({ slot: 4 })
 *     new ConsoleDriver(transport, pool).start()
 */

import { join } from 'node:path'
import { Watch } from '../../../ffi/poll.ts'
import { listenUnix, type UnixListener } from '../../../ffi/unix-listen.ts'
import { DmaPool, type DmaPoolOptions } from '../../../mem/dma-pool.ts'
import { findMsix } from '../../capabilities.ts'
import { PciRegisters } from '../../pci-registers.ts'
import { PciTransport } from '../../pci.ts'
import { QtestClient } from './client.ts'
import { Doorbell } from './doorbell.ts'
import { IntxLines } from './intx.ts'
import { enableMsix } from './msix.ts'
import { QtestPciBus, type PciPlace } from './pci.ts'
import { QtestRam } from './ram.ts'

export interface QtestMachineOptions {
  /** For the sockets that QEMU connects to. */
  folder: string
  /** Bytes; default 256 MiB. */
  memory?: number
  /** Slot for the device that turns MSI-X into events; false: none, INTx only. */
  doorbellSlot?: number | false
}

export interface QtestAttachOptions extends DmaPoolOptions {
  /** MSI-X vectors to use, at most what the function has; 0: INTx. Default 4, or 0 without a doorbell. */
  vectors?: number
}

export interface QtestDriver {
  readonly transport: PciTransport
  readonly pool: DmaPool
  /** MSI-X vectors in use; 0: INTx. */
  readonly vectors: number
  /** Takes the interrupts away; the device should have been reset. */
  detach(): void
}

const VECTORS = 4
const DOORBELL_SLOT = 0x1e

export class QtestMachine {
  readonly ram: QtestRam
  readonly doorbell: Doorbell | undefined
  readonly #listener: UnixListener
  readonly #watch: Watch
  readonly #doorbellSlot: number
  readonly #connected: Promise<QtestClient>
  #client: QtestClient | undefined
  #bus: QtestPciBus | undefined
  #intx: IntxLines | undefined

  constructor({ folder, memory, doorbellSlot = DOORBELL_SLOT }: QtestMachineOptions) {
    this.ram = new QtestRam(memory)
    this.#doorbellSlot = doorbellSlot === false ? -1 : doorbellSlot
    this.doorbell = doorbellSlot === false ? undefined : new Doorbell(join(folder, 'doorbell.sock'))
    this.#listener = listenUnix(join(folder, 'qtest.sock'))
    let take: (client: QtestClient) => void = () => {}
    this.#connected = new Promise((resolve) => (take = resolve))
    this.#watch = new Watch(this.#listener.fd, () => {
      const fd = this.#listener.accept()
      if (fd === undefined) return
      this.#watch.want(false, false)
      take((this.#client = new QtestClient(fd)))
    })
    this.#watch.want(true, false)
  }

  /** For QEMU, which inherits `ram.fd` as descriptor `fd`. The machine type is q35. */
  args(fd: number): string[] {
    const args = ['-machine', 'q35,memory-backend=qtest-ram', ...this.ram.args(fd), '-accel', 'qtest']
    args.push('-qtest', `unix:${this.#listener.path}`, '-qtest-log', '/dev/null', '-nodefaults', '-display', 'none')
    return this.doorbell ? [...args, ...this.doorbell.args(this.#doorbellSlot)] : args
  }

  /** Until QEMU has all its devices and answers. */
  async ready(): Promise<void> {
    const client = await this.#connected
    // Not by an access that waits: QEMU may be asking our doorbell for its fds just now.
    client.write(0, 1, 0)
    await client.idle()
    this.#bus = new QtestPciBus(client)
    if (!this.doorbell) return
    const place = { slot: this.#doorbellSlot }
    this.#bus.open(place)
    this.doorbell.setBar(this.#bus.barAddress(place, 0))
  }

  get client(): QtestClient {
    return this.#client!
  }

  get bus(): QtestPciBus {
    return this.#bus!
  }

  /** The interrupt pins. */
  get lines(): IntxLines {
    return (this.#intx ??= new IntxLines(this.client))
  }

  /** Our driver's way to the virtio function at `place`. Throws VmchannelError or PeerFault. */
  attach(place: PciPlace, options: QtestAttachOptions = {}): QtestDriver {
    const access = this.bus.open(place)
    const registers = new PciRegisters(access)
    const msix = this.doorbell && findMsix(registers)
    const vectors = msix ? Math.min(options.vectors ?? VECTORS, msix.vectors) : 0
    const transport = new PciTransport(access, { vectors })
    const release =
      msix && this.doorbell && vectors > 0
        ? enableMsix(registers, msix, this.doorbell, vectors, (vector) => transport.interrupt(vector))
        : this.lines.connect(() => transport.intx())
    const pool = new DmaPool((len) => this.ram.allocate(len), options)
    return {
      transport,
      pool,
      vectors,
      detach() {
        transport.connect(undefined)
        release()
      },
    }
  }

  /** Lets go of QEMU, which ends or not as it was told, and of the memory. */
  close(): void {
    this.#watch.close()
    this.#listener.close()
    this.#client?.close()
    this.doorbell?.close()
    this.ram.close()
  }
}
