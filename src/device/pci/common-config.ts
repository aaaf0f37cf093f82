/**
 * struct virtio_pci_common_cfg (§4.1.4.3): the registers through which a driver negotiates and sets up queues.
 *
 * Holds what the driver wrote, in the ledger, and decides what that means for the device; the device itself never sees a
 * register.
 */

import type { GuestMemory } from '../../mem/guest-memory.ts'
import type { Ledger } from '../../mem/ledger.ts'
import { VIRTIO_F_RING_RESET } from '../../spec/features.ts'
import { VIRTIO_MSI_NO_VECTOR, VIRTIO_PCI_COMMON_CFG_SIZEOF } from '../../spec/pci.ts'
import {
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
} from '../../spec/status.ts'
import type { RingAddresses } from '../../ring/split-ring.ts'
import type { ResumedQueue, VirtioDevice } from '../device.ts'
import { register, RegisterFile } from './registers.ts'

/** Cells of the ledger: of the device, and of each queue what the driver chose for it; addresses in halves, as the registers. */
const CELL = {
  ...{ status: 0, generation: 1, deviceFeatureSelect: 2, driverFeatureSelect: 3 },
  ...{ featuresLo: 4, featuresHi: 5, configVector: 6, queueSelect: 7, queues: 8 },
} as const
const QUEUE = {
  ...{ size: 0, vector: 1, enabled: 2 },
  ...{ descLo: 3, descHi: 4, availLo: 5, availHi: 6, usedLo: 7, usedHi: 8, cells: 9 },
} as const
type AddressHalf = 'descLo' | 'descHi' | 'availLo' | 'availHi' | 'usedLo' | 'usedHi'

const u32 = (mask: bigint, word: number): number => (word > 1 ? 0 : Number((mask >> BigInt(32 * word)) & 0xffffffffn))

export class CommonConfig {
  readonly #device: VirtioDevice
  readonly #memory: GuestMemory
  readonly #vectors: number
  readonly #onReset: () => void
  readonly #cells: Uint32Array

  constructor(device: VirtioDevice, memory: GuestMemory, vectors: number, onReset: () => void, ledger: Ledger) {
    this.#device = device
    this.#memory = memory
    this.#vectors = vectors
    this.#onReset = onReset
    this.#cells = ledger.u32(CELL.queues + QUEUE.cells * device.queueCount)
    if (!ledger.resumed) this.#clear()
  }

  /** Goes on with what another process left: queues, and the device where its driver runs. */
  resume(): void {
    const started = this.driverOk
    if ((this.#status & VIRTIO_CONFIG_S_FEATURES_OK) === 0) return
    const queues: ResumedQueue[] = []
    for (let index = 0; index < this.#device.queueCount; index++)
      if (this.#get(index, 'enabled') !== 0)
        queues.push({ index, size: this.#get(index, 'size'), at: this.#addresses(index) })
    this.#device.resume(this.#memory, { features: this.#driverFeatures, started, queues })
  }

  read(offset: number, out: Uint8Array): void {
    REGISTERS.read(this, offset, out)
  }
  write(offset: number, data: Uint8Array): void {
    REGISTERS.write(this, offset, data)
  }

  vectorOf(queue: number): number {
    return queue < this.#device.queueCount ? this.#get(queue, 'vector') : VIRTIO_MSI_NO_VECTOR
  }
  get driverOk(): boolean {
    return (this.#status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0
  }

  /** A new generation: what the driver read before has changed (§2.5.2, wraps). */
  changed(): void {
    this.#cells[CELL.generation] = (this.#cells[CELL.generation]! + 1) & 0xff
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
    this.#cells.fill(0, 0, CELL.queues)
    this.#cells[CELL.configVector] = VIRTIO_MSI_NO_VECTOR
    for (let queue = 0; queue < this.#device.queueCount; queue++) this.#unset(queue)
  }

  #unset(queue: number): void {
    const at = CELL.queues + queue * QUEUE.cells
    this.#cells.fill(0, at, at + QUEUE.cells)
    this.#cells[at + QUEUE.size] = this.#device.queueSizeMax(queue)
    this.#cells[at + QUEUE.vector] = VIRTIO_MSI_NO_VECTOR
  }

  get #status(): number {
    return this.#cells[CELL.status]!
  }
  set #status(status: number) {
    this.#cells[CELL.status] = status
  }
  get #driverFeatures(): bigint {
    return (BigInt(this.#cells[CELL.featuresHi]!) << 32n) | BigInt(this.#cells[CELL.featuresLo]!)
  }
  #get(queue: number, key: keyof typeof QUEUE): number {
    return this.#cells[CELL.queues + queue * QUEUE.cells + QUEUE[key]]!
  }
  #put(queue: number, key: keyof typeof QUEUE, value: number): void {
    this.#cells[CELL.queues + queue * QUEUE.cells + QUEUE[key]] = value
  }
  #addresses(queue: number): RingAddresses {
    return {
      desc: this.#get(queue, 'descHi') * 2 ** 32 + this.#get(queue, 'descLo'),
      avail: this.#get(queue, 'availHi') * 2 ** 32 + this.#get(queue, 'availLo'),
      used: this.#get(queue, 'usedHi') * 2 ** 32 + this.#get(queue, 'usedLo'),
    }
  }

  // --- registers, in the order of the structure

  get deviceFeatureSelect(): number {
    return this.#cells[CELL.deviceFeatureSelect]!
  }
  set deviceFeatureSelect(word: number) {
    this.#cells[CELL.deviceFeatureSelect] = word
  }
  get deviceFeature(): number {
    return u32(this.#device.features, this.deviceFeatureSelect)
  }
  get driverFeatureSelect(): number {
    return this.#cells[CELL.driverFeatureSelect]!
  }
  set driverFeatureSelect(word: number) {
    this.#cells[CELL.driverFeatureSelect] = word
  }
  get driverFeature(): number {
    return this.driverFeatureSelect > 1 ? 0 : this.#cells[CELL.featuresLo + this.driverFeatureSelect]!
  }
  set driverFeature(bits: number) {
    // §3.1.1: none after FEATURES_OK.
    if (this.#status & VIRTIO_CONFIG_S_FEATURES_OK || this.driverFeatureSelect > 1) return
    this.#cells[CELL.featuresLo + this.driverFeatureSelect] = bits
  }
  get configVector(): number {
    return this.#cells[CELL.configVector]!
  }
  set configVector(vector: number) {
    this.#cells[CELL.configVector] = this.#mappable(vector)
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
    return this.#cells[CELL.generation]!
  }

  get queueSelect(): number {
    return this.#cells[CELL.queueSelect]!
  }
  set queueSelect(queue: number) {
    this.#cells[CELL.queueSelect] = queue
  }
  /** The selected queue, where there is one. */
  get #queue(): number | undefined {
    return this.queueSelect < this.#device.queueCount ? this.queueSelect : undefined
  }
  get queueSize(): number {
    return this.#queue === undefined ? 0 : this.#get(this.#queue, 'size')
  }
  set queueSize(size: number) {
    this.#set('size', size)
  }
  get queueMsixVector(): number {
    return this.vectorOf(this.queueSelect)
  }
  set queueMsixVector(vector: number) {
    if (this.#queue !== undefined) this.#put(this.#queue, 'vector', this.#mappable(vector))
  }
  get queueEnable(): number {
    return this.#queue === undefined ? 0 : this.#get(this.#queue, 'enabled')
  }
  set queueEnable(value: number) {
    const queue = this.#queue
    if (value !== 1 || queue === undefined || this.queueEnable || !(this.#status & VIRTIO_CONFIG_S_FEATURES_OK)) return
    const size = this.#get(queue, 'size')
    // A size above the maximum is as broken as one that is no power of two: the ring itself refuses 0.
    const right = size > this.#device.queueSizeMax(queue) ? 0 : size
    const enabled = this.#device.enableQueue(queue, this.#memory, right, this.#addresses(queue))
    this.#put(queue, 'enabled', enabled ? 1 : 0)
  }
  /** notify_off: with the multiplier, each queue has a slot of its own. */
  get queueNotifyOff(): number {
    return this.#queue ?? 0
  }
  /** queue_reset (§2.6.1): done at once, so it never reads 1. */
  set queueReset(value: number) {
    if (value !== 1 || this.#queue === undefined || !(this.#driverFeatures & VIRTIO_F_RING_RESET)) return
    this.#device.resetQueue(this.#queue)
    this.#unset(this.#queue)
  }

  /** One half of an address. */
  address(half: AddressHalf): number {
    return this.#queue === undefined ? 0 : this.#get(this.#queue, half)
  }
  setAddress(half: AddressHalf, value: number): void {
    this.#set(half, value)
  }

  /** Changes a queue that is not enabled: a live one keeps its ring whatever is written (§4.1.4.3.2). */
  #set(key: keyof typeof QUEUE, value: number): void {
    if (this.#queue !== undefined && !this.queueEnable) this.#put(this.#queue, key, value)
  }

  /** §4.1.5.1.2.1: a vector that cannot be mapped reads back as NO_VECTOR. */
  #mappable(vector: number): number {
    return vector < this.#vectors ? vector : VIRTIO_MSI_NO_VECTOR
  }
}

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
    (c) => c.configVector,
    (c, v) => (c.configVector = v),
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
