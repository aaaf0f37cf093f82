/**
 * A PCI function's registers from user space, for UIO and VFIO alike: BARs are mapped when they are first used, and a
 * register is read and written in its own width, or the device sees accesses that mean something else (a DataView
 * reads bytes).
 */

import type { DeviceRegion } from '../../ffi/device-region.ts'

interface Bar {
  readonly region: DeviceRegion
  readonly u16: Uint16Array
  readonly u32: Uint32Array
}

export class MappedBars {
  readonly #map: (bar: number) => DeviceRegion
  readonly #bars: (Bar | undefined)[] = []

  constructor(map: (bar: number) => DeviceRegion) {
    this.#map = map
  }

  read(bar: number, offset: number, out: Uint8Array): void {
    const { region, u16, u32 } = this.#bar(bar)
    if (out.length === 4 && offset % 4 === 0) spread(u32[offset / 4]!, out)
    else if (out.length === 2 && offset % 2 === 0) spread(u16[offset / 2]!, out)
    else for (let i = 0; i < out.length; i++) out[i] = region.bytes[offset + i]!
  }

  write(bar: number, offset: number, data: Uint8Array): void {
    const { region, u16, u32 } = this.#bar(bar)
    if (data.length === 4 && offset % 4 === 0) u32[offset / 4] = gather(data)
    else if (data.length === 2 && offset % 2 === 0) u16[offset / 2] = gather(data)
    else for (let i = 0; i < data.length; i++) region.bytes[offset + i] = data[i]!
  }

  /** Lets go of the registers; what still calls reads zeros. */
  drop(): void {
    for (const bar of this.#bars) bar?.region.drop()
  }

  #bar(index: number): Bar {
    const known = this.#bars[index]
    if (known) return known
    const region = this.#map(index)
    const { buffer, byteOffset, length } = region.bytes
    const bar = {
      region,
      u16: new Uint16Array(buffer, byteOffset, length / 2),
      u32: new Uint32Array(buffer, byteOffset, length / 4),
    }
    return (this.#bars[index] = bar)
  }
}

function spread(value: number, out: Uint8Array): void {
  for (let i = 0; i < out.length; i++) out[i] = value >>> (8 * i)
}

function gather(data: Uint8Array): number {
  let value = 0
  for (let i = data.length - 1; i >= 0; i--) value = value * 256 + data[i]!
  return value
}
