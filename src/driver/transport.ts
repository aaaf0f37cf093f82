/**
 * What the driver half needs of a transport (PCI here, MMIO or an emulator later), and the way a driver starts a
 * device (§3.1.1). The mirror of device/device.ts: the transport owns registers and interrupts, the driver owns
 * features, configuration and queues.
 */

import { PeerFault, VmchannelError } from '../errors.ts'
import type { RingAddresses } from '../ring/split-ring.ts'
import { VIRTIO_F_VERSION_1 } from '../spec/features.ts'
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
} from '../spec/status.ts'

export interface Transport {
  /** virtio device id (§5). */
  readonly deviceId: number
  /** Queues that the device says it has; not to be believed without a bound. */
  readonly queueCount: number
  readStatus(): number
  writeStatus(status: number): void
  readDeviceFeatures(): bigint
  writeDriverFeatures(features: bigint): void
  /** Device configuration, all of it from one generation (§2.5.1). */
  readConfig(offset: number, out: Uint8Array): void
  writeConfig(offset: number, data: Uint8Array): void
  /** Largest size of a queue in entries; 0 where there is none. */
  queueSizeMax(queue: number): number
  /** Gives a queue its rings, and an interrupt if it is to have one (§4.1.5.1.3). */
  enableQueue(queue: number, size: number, at: RingAddresses, interrupts: boolean): void
  /** Available-buffer notification. */
  notify(queue: number): void
  /** Who hears of interrupts; undefined: nobody. */
  connect(handler: InterruptHandler | undefined): void
}

/** Calls come from the event loop, never from inside a call to the transport. */
export interface InterruptHandler {
  /** Used buffers, perhaps, in each of these queues. */
  queues(queues: readonly number[]): void
  /** The configuration or the device status has changed. */
  config(): void
}

export interface DriverStart {
  /** Chooses from what is offered (§2.2.1). VERSION_1 is added by `startDevice`. */
  choose(offered: bigint): bigint
  /** Sets up queues, one step after the other; the device does not run yet, so nothing may be notified (§3.1.1). */
  setUp(accepted: bigint): Iterable<undefined>
}

/** Reads of the status register before a reset that does not end is given up; each is a trip to the device. */
const RESET_READS = 10_000

/**
 * Takes a device from whatever it was to DRIVER_OK, in the order of §3.1.1, in the steps of `setUp`. When one fails the
 * device is told (FAILED) and the error goes on. Whoever leaves it in the middle resets the device.
 */
export function* startDevice(transport: Transport, start: DriverStart): Generator<undefined, void> {
  resetDevice(transport)
  try {
    addStatus(transport, VIRTIO_CONFIG_S_ACKNOWLEDGE)
    addStatus(transport, VIRTIO_CONFIG_S_DRIVER)
    const offered = transport.readDeviceFeatures()
    if (!(offered & VIRTIO_F_VERSION_1)) throw new PeerFault('the device does not offer VERSION_1 (§6.2)')
    const accepted = (start.choose(offered) & offered) | VIRTIO_F_VERSION_1
    transport.writeDriverFeatures(accepted)
    addStatus(transport, VIRTIO_CONFIG_S_FEATURES_OK)
    if (!(transport.readStatus() & VIRTIO_CONFIG_S_FEATURES_OK))
      throw new VmchannelError('ERR_VMCHANNEL_PORT', 'the device refused the features chosen from its own offer', {
        hint: 'The log of the device says why.',
      })
    yield* start.setUp(accepted)
    addStatus(transport, VIRTIO_CONFIG_S_DRIVER_OK)
  } catch (error) {
    failDevice(transport)
    throw error
  }
}

/** Resets the device and waits until it says that it is done (§2.4.2, §4.1.4.3.2). */
export function resetDevice(transport: Transport): void {
  transport.writeStatus(0)
  for (let i = 0; i < RESET_READS; i++) if (transport.readStatus() === 0) return
  throw new PeerFault(`the device does not finish its reset: status still ${transport.readStatus()} (§2.4.2)`)
}

/** Tells the device that its driver has given up on it (§2.1). */
export function failDevice(transport: Transport): void {
  addStatus(transport, VIRTIO_CONFIG_S_FAILED)
}

/** A driver never clears a bit (§2.1.1). */
function addStatus(transport: Transport, bit: number): void {
  transport.writeStatus(transport.readStatus() | bit)
}
