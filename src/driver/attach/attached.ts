/** What an attachment to a PCI function of this machine gives, and the steps that UIO and VFIO have in common. */

import { PeerFault, VmchannelError } from '../../errors.ts'
import type { DmaPool, DmaPoolOptions } from '../../mem/dma-pool.ts'
import { VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER } from '../../spec/status.ts'
import type { PciTransport } from '../pci.ts'
import { resetDevice } from '../transport.ts'

export interface AttachOptions extends DmaPoolOptions {
  /** The function is gone: unplugged, or taken away from us. Called from the event loop, once. */
  onGone?: () => void
  /** An interrupt has been served. */
  onServed?: () => void
}

/** An fd that becomes readable with an interrupt, and what is then to be done; the event loop does that by itself. */
export interface Waker {
  readonly fd: number
  serve(): void
}

export interface AttachedDevice {
  readonly transport: PciTransport
  readonly pool: DmaPool
  /** Features of the platform that the driver has to accept with its own. */
  readonly features: bigint
  /** What to show a person: "0000:00:03.0 (uio0, INTx)". */
  readonly label: string
  /** For who waits without the event loop; empty once the device is let go of. */
  readonly wakers: readonly Waker[]
  /** Interrupts taken. */
  readonly interrupts: number
  /**
   * Resets the device, lets go of it and of its memory, gives it back; returns the kernel driver that has it now, and
   * what went wrong: each step is made whatever became of the others.
   */
  detach(): Detached
}

export interface Detached {
  driver: string | undefined
  /** The first of them, in the order of the steps. */
  error: unknown
}

/** Resets the device, whatever it was doing, and asks what it offers; leaves it reset. */
export function lookAtFeatures(transport: PciTransport): bigint {
  // A driver before us may have been killed: the device must have let go of its pages before they are anybody's.
  resetDevice(transport)
  transport.writeStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE)
  transport.writeStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
  const offered = transport.readDeviceFeatures()
  resetDevice(transport)
  return offered
}

/** Whether the device does not know our pages any more: it was reset, or is gone (all registers read as ones). */
export function letGo(transport: PciTransport): boolean {
  try {
    if (transport.readStatus() === 0xff) return true
    resetDevice(transport)
    return true
  } catch {
    return false
  }
}

/** Backwards, each step whatever became of the others; returns the first error. */
export function undoAll(undo: (() => void)[]): unknown {
  let first: unknown
  for (const step of undo.splice(0).toReversed()) {
    try {
      step()
    } catch (error) {
      first ??= error
    }
  }
  return first
}

/** The error to tell a person where the device itself is not what it should be. */
export function attachError(bdf: string, error: unknown): unknown {
  if (!(error instanceof PeerFault)) return error
  return new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${bdf} cannot be driven: ${error.message}`, {
    cause: error,
    hint: 'It is given back. The log of the device, or of QEMU, may say more.',
  })
}
