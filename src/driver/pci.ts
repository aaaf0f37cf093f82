/**
 * A virtio device behind PCI, from the driver's side (§4.1): finds the structures, turns the calls of `Transport` into
 * register accesses, and interrupts into queues. Attachments bring the accesses and call `interrupt` or `intx`.
 */

import { PeerFault, VmchannelError } from '../errors.ts'
import type { RingAddresses } from '../ring/split-ring.ts'
import {
  PCI_COMMAND,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_DEVICE_ID_VIRTIO_BASE,
  PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE,
  PCI_VENDOR_ID,
  PCI_VENDOR_ID_VIRTIO,
  VIRTIO_ID_CONSOLE,
  VIRTIO_MSI_NO_VECTOR,
  VIRTIO_PCI_COMMON_CFGGENERATION,
  VIRTIO_PCI_COMMON_DF,
  VIRTIO_PCI_COMMON_DFSELECT,
  VIRTIO_PCI_COMMON_GF,
  VIRTIO_PCI_COMMON_GFSELECT,
  VIRTIO_PCI_COMMON_MSIX,
  VIRTIO_PCI_COMMON_NUMQ,
  VIRTIO_PCI_COMMON_Q_AVAILLO,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_ENABLE,
  VIRTIO_PCI_COMMON_Q_MSIX,
  VIRTIO_PCI_COMMON_Q_NOFF,
  VIRTIO_PCI_COMMON_Q_SELECT,
  VIRTIO_PCI_COMMON_Q_SIZE,
  VIRTIO_PCI_COMMON_Q_USEDLO,
  VIRTIO_PCI_COMMON_STATUS,
  VIRTIO_PCI_ISR_CONFIG,
  VIRTIO_PCI_ISR_QUEUE,
} from '../spec/pci.ts'
import { findStructures, type VirtioStructures } from './capabilities.ts'
import { PciRegisters, type PciAccess } from './pci-registers.ts'
import type { InterruptHandler, Transport } from './transport.ts'

/** Times the configuration is read anew while its generation changes under the reader. */
const GENERATION_READS = 100

export interface PciTransportOptions {
  /** MSI-X vectors that the attachment has enabled; 0: the INTx pin. */
  vectors: number
}

export class PciTransport implements Transport {
  readonly deviceId: number
  readonly structures: VirtioStructures
  readonly #access: PciAccess
  readonly #registers: PciRegisters
  readonly #vectors: number
  readonly #notifyOffset = new Map<number, number>()
  /** Queues that have an interrupt: all of them, and by vector. */
  #interrupting: number[] = []
  #byVector: number[][] = []
  #configVector = VIRTIO_MSI_NO_VECTOR
  #handler: InterruptHandler | undefined

  /** Looks at the function and lets it reach memory; PeerFault when it is not what it should be. */
  constructor(access: PciAccess, options: PciTransportOptions) {
    this.#access = access
    this.#registers = new PciRegisters(access)
    this.#vectors = options.vectors
    this.deviceId = identify(this.#registers)
    this.structures = findStructures(this.#registers, access.barSizes)
    const command = this.#registers.config16(PCI_COMMAND) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER
    this.#registers.setConfig16(PCI_COMMAND, command)
  }

  // --- interrupts, from the attachment

  /** MSI-X vector n has fired. */
  interrupt(vector: number): void {
    const queues = this.#byVector[vector]
    if (queues !== undefined && queues.length > 0) this.#handler?.queues(queues)
    // One vector may stand for both (§4.1.5.4.2).
    if (vector === this.#configVector) this.#handler?.config()
  }

  /** The INTx pin is up; false when it is not this function that raises it. Reading the ISR lets it go (§4.1.4.5). */
  intx(): boolean {
    const isr = this.#registers.bar8(this.structures.isr.bar, this.structures.isr.offset)
    if (isr & VIRTIO_PCI_ISR_QUEUE) this.#handler?.queues(this.#interrupting)
    if (isr & VIRTIO_PCI_ISR_CONFIG) this.#handler?.config()
    return isr !== 0
  }

  // --- Transport

  /** Comes after each reset, which takes all vectors away (§4.1.5.1.2.1). */
  connect(handler: InterruptHandler | undefined): void {
    this.#handler = handler
    this.#interrupting = []
    this.#byVector = Array.from({ length: this.#vectors }, () => [])
    this.#configVector = VIRTIO_MSI_NO_VECTOR
    if (handler && this.#vectors > 0) this.#configVector = this.#mapVector(VIRTIO_PCI_COMMON_MSIX, 0)
  }

  get queueCount(): number {
    return this.#read16(VIRTIO_PCI_COMMON_NUMQ)
  }

  readStatus(): number {
    const { bar, offset } = this.structures.common
    return this.#registers.bar8(bar, offset + VIRTIO_PCI_COMMON_STATUS)
  }

  writeStatus(status: number): void {
    const { bar, offset } = this.structures.common
    this.#registers.setBar8(bar, offset + VIRTIO_PCI_COMMON_STATUS, status)
  }

  readDeviceFeatures(): bigint {
    const word = (select: number): bigint => {
      this.#write32(VIRTIO_PCI_COMMON_DFSELECT, select)
      return BigInt(this.#read32(VIRTIO_PCI_COMMON_DF))
    }
    return word(0) | (word(1) << 32n)
  }

  writeDriverFeatures(features: bigint): void {
    for (const select of [0, 1]) {
      this.#write32(VIRTIO_PCI_COMMON_GFSELECT, select)
      this.#write32(VIRTIO_PCI_COMMON_GF, Number((features >> BigInt(32 * select)) & 0xffffffffn))
    }
  }

  readConfig(offset: number, out: Uint8Array): void {
    const at = this.#deviceConfig(offset, out.length)
    const { common } = this.structures
    const generation = (): number => this.#registers.bar8(common.bar, common.offset + VIRTIO_PCI_COMMON_CFGGENERATION)
    for (let i = 0; i < GENERATION_READS; i++) {
      const before = generation()
      this.#access.readBar(at.bar, at.offset, out)
      if (generation() === before) return
    }
    throw new PeerFault('the device configuration changes faster than it can be read (§2.5.1)')
  }

  writeConfig(offset: number, data: Uint8Array): void {
    const at = this.#deviceConfig(offset, data.length)
    this.#access.writeBar(at.bar, at.offset, data)
  }

  queueSizeMax(queue: number): number {
    this.#write16(VIRTIO_PCI_COMMON_Q_SELECT, queue)
    return this.#read16(VIRTIO_PCI_COMMON_Q_SIZE)
  }

  enableQueue(queue: number, size: number, at: RingAddresses, interrupts: boolean): void {
    this.#write16(VIRTIO_PCI_COMMON_Q_SELECT, queue)
    this.#write16(VIRTIO_PCI_COMMON_Q_SIZE, size)
    this.#write64(VIRTIO_PCI_COMMON_Q_DESCLO, at.desc)
    this.#write64(VIRTIO_PCI_COMMON_Q_AVAILLO, at.avail)
    this.#write64(VIRTIO_PCI_COMMON_Q_USEDLO, at.used)
    if (interrupts) this.#mapQueue(queue)
    const { notify } = this.structures
    const offset = this.#read16(VIRTIO_PCI_COMMON_Q_NOFF) * notify.multiplier
    if (offset + 2 > notify.len)
      throw new PeerFault(
        `queue ${queue} would be notified at ${offset}, past the ${notify.len} bytes there are (§4.1.4.4)`,
      )
    this.#notifyOffset.set(queue, notify.offset + offset)
    this.#write16(VIRTIO_PCI_COMMON_Q_ENABLE, 1)
    if (this.#read16(VIRTIO_PCI_COMMON_Q_ENABLE) !== 1) throw new PeerFault(`the device did not enable queue ${queue}`)
  }

  notify(queue: number): void {
    const offset = this.#notifyOffset.get(queue)
    if (offset !== undefined) this.#registers.setBar16(this.structures.notify.bar, offset, queue)
  }

  /** Vector 0 is for configuration changes; queues share the others in turn, or that one where there is no other. */
  #mapQueue(queue: number): void {
    const nth = this.#interrupting.push(queue) - 1
    if (this.#vectors === 0) return
    const wanted = this.#vectors === 1 ? 0 : 1 + (nth % (this.#vectors - 1))
    this.#byVector[this.#mapVector(VIRTIO_PCI_COMMON_Q_MSIX, wanted)]!.push(queue)
  }

  /** Maps an event to a vector and reads back whether that could be done (§4.1.5.1.2.2). */
  #mapVector(register: number, vector: number): number {
    this.#write16(register, vector)
    if (this.#read16(register) === vector) return vector
    throw new VmchannelError('ERR_VMCHANNEL_PORT', `the device cannot map MSI-X vector ${vector}`, {
      hint: 'Attach with fewer vectors, or with INTx.',
    })
  }

  #deviceConfig(offset: number, len: number): { bar: number; offset: number } {
    const { device } = this.structures
    if (!device || offset + len > device.len)
      throw new PeerFault(`the device configuration has ${device?.len ?? 0} bytes, ${offset + len} are needed`)
    return { bar: device.bar, offset: device.offset + offset }
  }

  #read16(register: number): number {
    return this.#registers.bar16(this.structures.common.bar, this.structures.common.offset + register)
  }
  #write16(register: number, value: number): void {
    this.#registers.setBar16(this.structures.common.bar, this.structures.common.offset + register, value)
  }
  #read32(register: number): number {
    return this.#registers.bar32(this.structures.common.bar, this.structures.common.offset + register)
  }
  #write32(register: number, value: number): void {
    this.#registers.setBar32(this.structures.common.bar, this.structures.common.offset + register, value)
  }
  /** 64-bit registers are written as two halves (§4.1.3.1). */
  #write64(register: number, value: number): void {
    this.#write32(register, value % 2 ** 32)
    this.#write32(register + 4, Math.floor(value / 2 ** 32))
  }
}

/** The virtio device id (§4.1.2); transitional devices have another numbering, and only the console's is known here. */
function identify(registers: PciRegisters): number {
  const vendor = registers.config16(PCI_VENDOR_ID)
  const device = registers.config16(PCI_DEVICE_ID)
  if (vendor === PCI_VENDOR_ID_VIRTIO) {
    if (device === PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE) return VIRTIO_ID_CONSOLE
    if (device > PCI_DEVICE_ID_VIRTIO_BASE && device < PCI_DEVICE_ID_VIRTIO_BASE + 0x40)
      return device - PCI_DEVICE_ID_VIRTIO_BASE
  }
  const found = `${vendor.toString(16).padStart(4, '0')}:${device.toString(16).padStart(4, '0')}`
  throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `the PCI function is ${found}, not a virtio device (1af4:1043)`)
}
