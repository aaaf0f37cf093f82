/**
 * The contract between a virtio device and the transport that shows it to a driver (PCI here, MMIO or an emulator
 * later). The transport owns registers and interrupts; the device owns features, configuration and queues.
 */

import type { GuestMemory } from '../mem/guest-memory.ts'
import type { RingAddresses } from '../ring/split-ring.ts'

export interface VirtioDevice {
  /** virtio device id (§5). */
  readonly id: number
  /** All that is offered, a mask (§2.2). */
  readonly features: bigint
  /** Queues that exist, whether negotiated or not. */
  readonly queueCount: number
  /** Largest size of a queue in entries, a power of two; 0 where there is none. */
  queueSizeMax(queue: number): number

  /** Device configuration (§2.5); what lies outside reads as 0. Readable and writable at any time. */
  readConfig(offset: number, out: Uint8Array): void
  writeConfig(offset: number, data: Uint8Array): void

  /** The driver set FEATURES_OK with this subset of `features`; false refuses it (§2.2.2). */
  acceptFeatures(features: bigint): boolean
  /** Enables a queue; false when it cannot work (the transport leaves it disabled and asks for a reset). */
  enableQueue(queue: number, memory: GuestMemory, size: number, at: RingAddresses): boolean
  /** RING_RESET of one queue (§2.6.1). */
  resetQueue(queue: number): void
  /** DRIVER_OK. */
  start(): void
  /** The driver made buffers available; before `start` it is ignored. */
  notify(queue: number): void
  /** What another process left: before anything else but the memory. */
  resume(memory: GuestMemory, state: ResumedState): void
  /** The memory map has changed: rings have to be looked up again. */
  memoryChanged(): void
  /** Whether the device may touch memory at all: PCI's bus master bit, on everywhere else. */
  setBusMaster(on: boolean): void
  /** Back to power-on, apart from what the host set up. */
  reset(): void
  /** The transport that shows this device; undefined when it goes. */
  connect(host: DeviceHost | undefined): void
}

export interface ResumedQueue {
  index: number
  size: number
  at: RingAddresses
}

/** A device with an accepted driver, as its registers have it. */
export interface ResumedState {
  features: bigint
  /** DRIVER_OK. */
  started: boolean
  /** Those that are enabled. */
  queues: readonly ResumedQueue[]
}

/** What a device asks of its transport. */
export interface DeviceHost {
  /** Used-buffer notification of a queue (§2.3). */
  interruptQueue(queue: number): void
  /** Configuration change notification, with a new generation (§2.5). */
  configChanged(): void
  /** The driver broke something that only a reset mends: DEVICE_NEEDS_RESET (§2.1.2). */
  needsReset(): void
}
