/**
 * A device of this guest under our driver, from taking it over to giving it back. Called by main.ts, which shows the
 * ports as character devices, and by device.ts, which gives them to a program.
 */

import { existsSync } from 'node:fs'
import { driverOf, type PciFunction } from '../driver/attach/pci-sysfs.ts'
import type { AttachedDevice, AttachOptions, Waker } from '../driver/attach/attached.ts'
import { attachUio, UIO_DRIVER } from '../driver/attach/uio/attach.ts'
import { attachVfio, VFIO_DRIVER } from '../driver/attach/vfio/attach.ts'
import { DRIVER_FEATURES } from '../driver/console-options.ts'
import { ConsoleDriver } from '../driver/console.ts'
import type { DriverPortEvent } from '../driver/port-settings.ts'
import { describeError, PeerFault, VmchannelError } from '../errors.ts'
import { SILENT, type Log } from '../log.ts'
import { checkFree, checkModern, checkModules, checkRoot, chooseDevice, suggestDriver } from './preflight.ts'
import { ResetLimit } from './reset-limit.ts'

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
  const attach = driver === 'vfio' ? attachVfio : attachUio
  return new Session(pci, driverOf(pci), (hooks) => attach(pci, hooks), view, log)
}

/** @internal `startSession` makes one; `before` is the kernel driver that had the device. */
export class Session implements GuestSession {
  readonly device: string
  readonly driver: ConsoleDriver
  readonly ended: Promise<void>
  readonly #pci: PciFunction
  readonly #before: string | undefined
  readonly #log: Log
  readonly #attachment: AttachedDevice
  #over: { resolve: () => void; reject: (error: Error) => void } | undefined
  #stopping: Promise<void> | undefined
  readonly #resets = new ResetLimit()

  constructor(
    pci: PciFunction,
    before: string | undefined,
    attach: (options: AttachOptions) => AttachedDevice,
    view: PortView,
    log: Log,
  ) {
    this.device = pci.bdf
    this.#pci = pci
    this.#before = before
    this.#log = log
    this.ended = new Promise((resolve, reject) => (this.#over = { resolve, reject }))
    // Nobody has to wait for it.
    this.ended.catch(() => {})
    try {
      this.#attachment = attach({ onGone: () => this.#gone(), onServed: () => view.served?.() })
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
    this.#finish()
  }

  async #stop(): Promise<void> {
    const deadline = Date.now() + QUIESCE_MS
    while (this.driver.running && this.driver.ports.some((port) => port.unsent > 0) && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 5))
    this.#finish()
  }

  /** Ends it; a device that is without a driver now is nobody's success. */
  #finish(): void {
    const trouble = this.#end()
    if (trouble) this.#over?.reject(trouble)
    else this.#over?.resolve()
  }

  #end(): VmchannelError | undefined {
    try {
      this.driver.stop()
    } catch (error) {
      // It does not finish its reset, or is gone; the kernel resets it once more when it takes it back.
      this.#log.warn(error instanceof Error ? error.message : String(error))
    }
    return this.#release()
  }

  /** Gives the device back; says, and returns, what has become of one that is still there and has no driver. */
  #release(): VmchannelError | undefined {
    const { bdf, path } = this.#pci
    const detached = this.#attachment?.detach()
    if (!detached) return undefined
    const { driver, error } = detached
    const kept = driver !== undefined && driver !== UIO_DRIVER && driver !== VFIO_DRIVER
    if (kept) this.#log.info(`${bdf} is given back to ${driver}`)
    // Unplugged; or nobody had it before, and nobody has it now.
    if (kept || !existsSync(path) || (driver === undefined && this.#before === undefined && error === undefined))
      return undefined
    // It was with us before, started by somebody who bound it by hand: it stays there.
    if (driver === this.#before && error === undefined) return undefined
    const why = error === undefined ? '' : `: ${describeError(error)}`
    const trouble = new VmchannelError(
      'ERR_VMCHANNEL_PLATFORM',
      `${bdf} could not be given back to ${this.#before ?? 'the kernel'}, ${driver ?? 'no driver'} has it${why}`,
      { cause: error, hint: `As root: echo > ${path}/driver_override; echo ${bdf} > /sys/bus/pci/drivers_probe` },
    )
    this.#log.error(describeError(trouble))
    return trouble
  }

  #reset(): void {
    if (this.#stopping || !this.driver.running) return
    const often = this.#resets.tooMany(performance.now())
    if (often !== undefined) return this.#fail(new PeerFault(`the device asked for a reset ${often}`))
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
    this.#finish()
  }
}
