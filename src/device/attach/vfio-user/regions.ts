/**
 * REGION_READ and REGION_WRITE: the guest's accesses to BARs and configuration space. Called by the session; a notify
 * of the guest comes through `write` and allocates nothing.
 */

import type { PciFunction } from '../../pci/function.ts'
import { regionSizes } from './info.ts'
import { ERRNO, HEADER_SIZE, MAX_DATA_XFER, REGION_ACCESS, REGION_CONFIG, type Message, type Reply } from './wire.ts'

const DATA = HEADER_SIZE + REGION_ACCESS.data

export class Regions {
  readonly sizes: readonly number[]
  readonly #pci: PciFunction
  // Register widths; what is read into or written from them is valid during the call only.
  readonly #scratch: Readonly<Record<number, Uint8Array>> = widths()

  constructor(pci: PciFunction) {
    this.#pci = pci
    this.sizes = regionSizes(pci)
  }

  read(message: Message, reply: Reply): number {
    const { view, at } = message
    if (message.len !== REGION_ACCESS.size) return -ERRNO.EINVAL
    const count = view.getUint32(at + REGION_ACCESS.count, true)
    if (!this.#inside(message, count)) return -ERRNO.EINVAL
    const region = view.getUint32(at + REGION_ACCESS.region, true)
    const offset = view.getUint32(at + REGION_ACCESS.offset, true)
    const data = this.#scratch[count] ?? reply.bytes.subarray(DATA, DATA + count)
    data.fill(0)
    if (region === REGION_CONFIG) this.#pci.readConfig(offset, data)
    else this.#pci.readBar(region, offset, data)
    if (data.length <= 8) for (let i = 0; i < count; i++) reply.bytes[DATA + i] = data[i]!
    this.#echo(message, reply)
    return REGION_ACCESS.size + count
  }

  write(message: Message, reply: Reply): number {
    const { view, bytes, at } = message
    const count = message.len - REGION_ACCESS.size
    if (count < 0 || view.getUint32(at + REGION_ACCESS.count, true) !== count) return -ERRNO.EINVAL
    if (!this.#inside(message, count)) return -ERRNO.EINVAL
    const region = view.getUint32(at + REGION_ACCESS.region, true)
    const offset = view.getUint32(at + REGION_ACCESS.offset, true)
    const from = at + REGION_ACCESS.data
    const scratch = this.#scratch[count]
    if (scratch) for (let i = 0; i < count; i++) scratch[i] = bytes[from + i]!
    const data = scratch ?? bytes.subarray(from, from + count)
    if (region === REGION_CONFIG) this.#pci.writeConfig(offset, data)
    else this.#pci.writeBar(region, offset, data)
    this.#echo(message, reply)
    return REGION_ACCESS.size
  }

  #inside({ view, at }: Message, count: number): boolean {
    const size = this.sizes[view.getUint32(at + REGION_ACCESS.region, true)] ?? 0
    const high = view.getUint32(at + REGION_ACCESS.offset + 4, true)
    const offset = view.getUint32(at + REGION_ACCESS.offset, true)
    return count > 0 && count <= MAX_DATA_XFER && high === 0 && offset + count <= size
  }

  #echo({ view, at }: Message, reply: Reply): void {
    for (let i = 0; i < REGION_ACCESS.size; i += 4)
      reply.view.setUint32(HEADER_SIZE + i, view.getUint32(at + i, true), true)
  }
}

function widths(): Record<number, Uint8Array> {
  return { 1: new Uint8Array(1), 2: new Uint8Array(2), 4: new Uint8Array(4), 8: new Uint8Array(8) }
}
