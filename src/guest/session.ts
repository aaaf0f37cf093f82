/**
 * A device of this guest under our driver, from taking it over to giving it back. Called by main.ts, which shows the
 * ports as character devices, and by device.ts, which gives them to a program.
 */

import type { PciFunction } from '../driver/attach/pci-sysfs.ts'
import type { AttachedDevice, Waker } from '../driver/attach/attached.ts'
import { attachUio, UIO_DRIVER } from '../driver/attach/uio/attach.ts'
import { attachVfio, VFIO_DRIVER } from '../driver/attach/vfio/attach.ts'
import { DRIVER_FEATURES } from '../driver/console-options.ts'
import { ConsoleDriver } from '../driver/console.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import { PeerFault, VmchannelError } from '../errors.ts'
import { SILENT, type Log } from '../log.ts'
import { checkFree, checkModern, checkModules, checkRoot, chooseDevice, suggestDriver } from './preflight.ts'

export interface SessionOptions {
  /** Address of the device, as lspci prints it; default: the first virtio-serial device. */
  device?: string
  /** How to reach it; default: VFIO where the device is behind an IOMMU, UIO elsewhere. */
  driver?: 'uio' | 'vfio'
  /** Take the device even though programs have its ports open. */
  force?: boolean
  log?: Log
}

/** Who shows the ports. */
export interface PortView {
  /** Before the driver starts: what wakes it. */
  attached?(wakers: readonly Waker[]): void
  handle(event: DriverPortEvent): void
  /** After an interrupt: there is more to come. */
  served?(): void
  /** Microseconds that the driver may look at a ring before it asks for its interrupt; default 0. */
  readonly patience?: number
}

export interface GuestSession {
  /** Address of the device. */
  readonly device: string
  readonly driver: ConsoleDriver
  /** Resolves when it is over: stopped, or the device is gone; rejects when the device cannot be driven any more. */
  readonly ended: Promise<void>
  /** Ends all ports, resets the device and gives it back to the kernel. */
  stop(): Promise<void>
  /** The same at once: what is on its way to the host may be lost. */
  stopNow(): void
}

/** Times a device that asks for a reset gets one before it is given up. */
const RESETS = 5
/** Time for what programs have written to reach the host, when the device is given back. */
const QUIESCE_MS = 1000

/** Takes a device over. Throws VmchannelError. */
export function startSession(options: SessionOptions, view: PortView): GuestSession {
  const log = options.log ?? SILENT
  checkRoot()
  const pci = chooseDevice(options.device)
  checkModern(pci)
  if (!options.force) checkFree(pci)
  const driver = options.driver ?? suggestDriver(pci)
  checkModules(driver === 'vfio' ? VFIO_DRIVER : UIO_DRIVER)
  return new Session(pci, driver, view, log)
}

class Session implements GuestSession {
  readonly device: string
  readonly driver: ConsoleDriver
  readonly ended: Promise<void>
  readonly #pci: PciFunction
  readonly #log: Log
  readonly #attachment: AttachedDevice
  #over: { resolve: () => void; reject: (error: Error) => void } | undefined
  #stopping: Promise<void> | undefined
  #resets = 0

  constructor(pci: PciFunction, driver: 'uio' | 'vfio', view: PortView, log: Log) {
    this.device = pci.bdf
    this.#pci = pci
    this.#log = log
    this.ended = new Promise((resolve, reject) => (this.#over = { resolve, reject }))
    // Nobody has to wait for it.
    this.ended.catch(() => {})
    try {
      const attach = driver === 'vfio' ? attachVfio : attachUio
      this.#attachment = attach(pci, { onGone: () => this.#gone(), onServed: () => view.served?.() })
      const { transport, pool, features, wakers } = this.#attachment
      view.attached?.(wakers)
      this.driver = new ConsoleDriver(transport, pool, {
        log,
        features: DRIVER_FEATURES | features,
        defer: setImmediate,
        patience: view.patience ?? 0,
        onPort: (event) => view.handle(event),
        onNeedsReset: () => setImmediate(() => this.#reset()),
        onFailed: (error) => setImmediate(() => this.#fail(error)),
      })
      this.driver.start()
    } catch (error) {
      this.#release()
      if (error instanceof PeerFault)
        throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `${pci.bdf}: ${error.message}`, { cause: error })
      throw error
    }
    log.info(`${this.#attachment.label}: ${this.driver.maxPorts} ports at most`)
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop())
  }

  stopNow(): void {
    if (this.#stopping) return
    this.#stopping = this.ended
    this.#end()
    this.#over?.resolve()
  }

  async #stop(): Promise<void> {
    const deadline = Date.now() + QUIESCE_MS
    while (this.driver.running && this.driver.ports.some((port) => port.unsent > 0) && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 5))
    this.#end()
    this.#over?.resolve()
  }

  #end(): void {
    try {
      this.driver.stop()
    } catch (error) {
      // It does not finish its reset, or is gone; the kernel resets it once more when it takes it back.
      this.#log.warn(error instanceof Error ? error.message : String(error))
    }
    this.#release()
  }

  #release(): void {
    const driver = this.#attachment?.detach()
    if (driver !== undefined) this.#log.info(`${this.#pci.bdf} is given back to ${driver}`)
  }

  #reset(): void {
    if (this.#stopping || !this.driver.running) return
    if (++this.#resets > RESETS) return this.#fail(new PeerFault(`the device asked for a reset ${RESETS} times`))
    try {
      this.driver.restart()
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #fail(error: Error): void {
    if (this.#stopping) return
    this.#stopping = this.ended
    this.#end()
    this.#over?.reject(
      new VmchannelError('ERR_VMCHANNEL_INTERNAL', `${this.#pci.bdf}: ${error.message}`, {
        cause: error,
        hint: 'The device broke the rules of virtio; its log, or that of QEMU, may say why.',
      }),
    )
  }

  /** Unplugged, or taken away by hand. */
  #gone(): void {
    if (this.#stopping) return
    this.#log.warn(`${this.#pci.bdf} is gone`)
    this.#stopping = this.ended
    this.#end()
    this.#over?.resolve()
  }
}
