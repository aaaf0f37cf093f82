/**
 * struct virtio_pci_common_cfg (§4.1.4.3): the registers through which a driver negotiates and sets up queues.
 *
 * Holds what the driver wrote and decides what that means for the device; the device itself never sees a register.
 */

import type { GuestMemory } from '../../mem/guest-memory.ts'
import { VIRTIO_F_RING_RESET } from '../../spec/features.ts'
import { VIRTIO_MSI_NO_VECTOR, VIRTIO_PCI_COMMON_CFG_SIZEOF } from '../../spec/pci.ts'
import {
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
} from '../../spec/status.ts'
import type { VirtioDevice } from '../device.ts'
import { register, RegisterFile } from './registers.ts'

/** What the driver chose for one queue. */
interface QueueSetup {
  size: number
  vector: number
  enabled: boolean
  // Halves of the three addresses, as the registers have them.
  descLo: number
  descHi: number
  availLo: number
  availHi: number
  usedLo: number
  usedHi: number
}

const u32 = (mask: bigint, word: number): number => (word > 1 ? 0 : Number((mask >> BigInt(32 * word)) & 0xffffffffn))

export class CommonConfig {
  readonly #device: VirtioDevice
  readonly #memory: GuestMemory
  readonly #vectors: number
  readonly #onReset: () => void
  #status = 0
  #generation = 0
  #deviceFeatureSelect = 0
  #driverFeatureSelect = 0
  #driverFeatures = 0n
  #configVector = VIRTIO_MSI_NO_VECTOR
  #queueSelect = 0
  #queues: QueueSetup[] = []

  constructor(device: VirtioDevice, memory: GuestMemory, vectors: number, onReset: () => void) {
    this.#device = device
    this.#memory = memory
    this.#vectors = vectors
    this.#onReset = onReset
    this.#clear()
  }

  read(offset: number, out: Uint8Array): void {
    REGISTERS.read(this, offset, out)
  }
  write(offset: number, data: Uint8Array): void {
    REGISTERS.write(this, offset, data)
  }

  get configVector(): number {
    return this.#configVector
  }
  vectorOf(queue: number): number {
    return this.#queues[queue]?.vector ?? VIRTIO_MSI_NO_VECTOR
  }
  get driverOk(): boolean {
    return (this.#status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0
  }

  /** A new generation: what the driver read before has changed (§2.5.2, wraps). */
  changed(): void {
    this.#generation = (this.#generation + 1) & 0xff
  }

  /** DEVICE_NEEDS_RESET (§2.1.2); true when the driver is to be told, which is after DRIVER_OK. */
  needsReset(): boolean {
    this.#status |= VIRTIO_CONFIG_S_NEEDS_RESET
    return this.driverOk
  }

  /** Device reset (§2.4), by the driver's 0 or by the machine. */
  reset(): void {
    this.#device.reset()
    this.#clear()
    this.#onReset()
  }

  #clear(): void {
    this.#status = 0
    this.#deviceFeatureSelect = this.#driverFeatureSelect = this.#queueSelect = 0
    this.#driverFeatures = 0n
    this.#configVector = VIRTIO_MSI_NO_VECTOR
    this.#queues = Array.from({ length: this.#device.queueCount }, (_, queue) => this.#unset(queue))
  }

  #unset(queue: number): QueueSetup {
    const size = this.#device.queueSizeMax(queue)
    return {
      ...{ size, vector: VIRTIO_MSI_NO_VECTOR, enabled: false },
      ...{ descLo: 0, descHi: 0, availLo: 0, availHi: 0, usedLo: 0, usedHi: 0 },
    }
  }

  // --- registers, in the order of the structure

  get deviceFeatureSelect(): number {
    return this.#deviceFeatureSelect
  }
  set deviceFeatureSelect(word: number) {
    this.#deviceFeatureSelect = word
  }
  get deviceFeature(): number {
    return u32(this.#device.features, this.#deviceFeatureSelect)
  }
  get driverFeatureSelect(): number {
    return this.#driverFeatureSelect
  }
  set driverFeatureSelect(word: number) {
    this.#driverFeatureSelect = word
  }
  get driverFeature(): number {
    return u32(this.#driverFeatures, this.#driverFeatureSelect)
  }
  set driverFeature(bits: number) {
    // §3.1.1: none after FEATURES_OK.
    if (this.#status & VIRTIO_CONFIG_S_FEATURES_OK || this.#driverFeatureSelect > 1) return
    const shift = BigInt(32 * this.#driverFeatureSelect)
    this.#driverFeatures = (this.#driverFeatures & ~(0xffffffffn << shift)) | (BigInt(bits) << shift)
  }
  get configMsixVector(): number {
    return this.#configVector
  }
  set configMsixVector(vector: number) {
    this.#configVector = this.#mappable(vector)
  }
  get numQueues(): number {
    return this.#device.queueCount
  }

  get deviceStatus(): number {
    return this.#status
  }
  set deviceStatus(value: number) {
    if (value === 0) {
      this.reset()
      return
    }
    const fresh = value & ~this.#status
    // A driver never clears a bit (§2.1.1), and NEEDS_RESET is ours.
    this.#status |= value & ~VIRTIO_CONFIG_S_NEEDS_RESET
    if (fresh & VIRTIO_CONFIG_S_FEATURES_OK && !this.#device.acceptFeatures(this.#driverFeatures))
      this.#status &= ~VIRTIO_CONFIG_S_FEATURES_OK
    if (fresh & VIRTIO_CONFIG_S_DRIVER_OK) {
      if (this.#status & VIRTIO_CONFIG_S_FEATURES_OK) this.#device.start()
      else this.#status &= ~VIRTIO_CONFIG_S_DRIVER_OK
    }
  }
  get configGeneration(): number {
    return this.#generation
  }

  get queueSelect(): number {
    return this.#queueSelect
  }
  set queueSelect(queue: number) {
    this.#queueSelect = queue
  }
  get #queue(): QueueSetup | undefined {
    return this.#queues[this.#queueSelect]
  }
  get queueSize(): number {
    return this.#queue?.size ?? 0
  }
  set queueSize(size: number) {
    this.#set((queue) => (queue.size = size))
  }
  get queueMsixVector(): number {
    return this.#queue?.vector ?? VIRTIO_MSI_NO_VECTOR
  }
  set queueMsixVector(vector: number) {
    if (this.#queue) this.#queue.vector = this.#mappable(vector)
  }
  get queueEnable(): number {
    return this.#queue?.enabled ? 1 : 0
  }
  set queueEnable(value: number) {
    const queue = this.#queue
    if (value !== 1 || !queue || queue.enabled || !(this.#status & VIRTIO_CONFIG_S_FEATURES_OK)) return
    const at = {
      desc: queue.descHi * 2 ** 32 + queue.descLo,
      avail: queue.availHi * 2 ** 32 + queue.availLo,
      used: queue.usedHi * 2 ** 32 + queue.usedLo,
    }
    const max = this.#device.queueSizeMax(this.#queueSelect)
    // A size above the maximum is as broken as one that is no power of two: the ring itself refuses 0.
    queue.enabled = this.#device.enableQueue(this.#queueSelect, this.#memory, queue.size > max ? 0 : queue.size, at)
  }
  /** notify_off: with the multiplier, each queue has a slot of its own. */
  get queueNotifyOff(): number {
    return this.#queue ? this.#queueSelect : 0
  }
  /** queue_reset (§2.6.1): done at once, so it never reads 1. */
  set queueReset(value: number) {
    if (value !== 1 || !this.#queue || !(this.#driverFeatures & VIRTIO_F_RING_RESET)) return
    this.#device.resetQueue(this.#queueSelect)
    this.#queues[this.#queueSelect] = this.#unset(this.#queueSelect)
  }

  /** One half of an address. */
  address(half: AddressHalf): number {
    return this.#queue?.[half] ?? 0
  }
  setAddress(half: AddressHalf, value: number): void {
    this.#set((queue) => (queue[half] = value))
  }

  /** Changes a queue that is not enabled: a live one keeps its ring whatever is written (§4.1.4.3.2). */
  #set(change: (queue: QueueSetup) => void): void {
    if (this.#queue && !this.#queue.enabled) change(this.#queue)
  }

  /** §4.1.5.1.2.1: a vector that cannot be mapped reads back as NO_VECTOR. */
  #mappable(vector: number): number {
    return vector < this.#vectors ? vector : VIRTIO_MSI_NO_VECTOR
  }
}

type AddressHalf = 'descLo' | 'descHi' | 'availLo' | 'availHi' | 'usedLo' | 'usedHi'

const half = (name: string, key: AddressHalf) =>
  register<CommonConfig>(
    name,
    4,
    (c) => c.address(key),
    (c, v) => c.setAddress(key, v),
  )

/** §4.1.4.3, in order. */
const REGISTERS = new RegisterFile<CommonConfig>([
  register(
    'device_feature_select',
    4,
    (c) => c.deviceFeatureSelect,
    (c, v) => (c.deviceFeatureSelect = v),
  ),
  register('device_feature', 4, (c) => c.deviceFeature),
  register(
    'driver_feature_select',
    4,
    (c) => c.driverFeatureSelect,
    (c, v) => (c.driverFeatureSelect = v),
  ),
  register(
    'driver_feature',
    4,
    (c) => c.driverFeature,
    (c, v) => (c.driverFeature = v),
  ),
  register(
    'config_msix_vector',
    2,
    (c) => c.configMsixVector,
    (c, v) => (c.configMsixVector = v),
  ),
  register('num_queues', 2, (c) => c.numQueues),
  register(
    'device_status',
    1,
    (c) => c.deviceStatus,
    (c, v) => (c.deviceStatus = v),
  ),
  register('config_generation', 1, (c) => c.configGeneration),
  register(
    'queue_select',
    2,
    (c) => c.queueSelect,
    (c, v) => (c.queueSelect = v),
  ),
  register(
    'queue_size',
    2,
    (c) => c.queueSize,
    (c, v) => (c.queueSize = v),
  ),
  register(
    'queue_msix_vector',
    2,
    (c) => c.queueMsixVector,
    (c, v) => (c.queueMsixVector = v),
  ),
  register(
    'queue_enable',
    2,
    (c) => c.queueEnable,
    (c, v) => (c.queueEnable = v),
  ),
  register('queue_notify_off', 2, (c) => c.queueNotifyOff),
  half('queue_desc_lo', 'descLo'),
  half('queue_desc_hi', 'descHi'),
  half('queue_driver_lo', 'availLo'),
  half('queue_driver_hi', 'availHi'),
  half('queue_device_lo', 'usedLo'),
  half('queue_device_hi', 'usedHi'),
  register('queue_notify_data', 2, () => 0),
  register(
    'queue_reset',
    2,
    () => 0,
    (c, v) => (c.queueReset = v),
  ),
])

if (REGISTERS.len !== VIRTIO_PCI_COMMON_CFG_SIZEOF) throw new Error('the table is not as long as the structure')
