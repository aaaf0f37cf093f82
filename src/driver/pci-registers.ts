/**
 * Access to a PCI function, as the attachments give it (loopback here; UIO and VFIO on a machine), and the same by
 * register width: drivers use the natural one (§4.1.3.1).
 */

export interface PciAccess {
  /** Size in bytes of BAR 0…5, 0 where there is none. */
  readonly barSizes: readonly number[]
  readConfig(offset: number, out: Uint8Array): void
  writeConfig(offset: number, data: Uint8Array): void
  readBar(bar: number, offset: number, out: Uint8Array): void
  writeBar(bar: number, offset: number, data: Uint8Array): void
}

export class PciRegisters {
  readonly #access: PciAccess
  readonly #bytes = [new Uint8Array(0), new Uint8Array(1), new Uint8Array(2), new Uint8Array(0), new Uint8Array(4)]

  constructor(access: PciAccess) {
    this.#access = access
  }

  config8(offset: number): number {
    return this.#readConfig(offset, 1)
  }
  config16(offset: number): number {
    return this.#readConfig(offset, 2)
  }
  config32(offset: number): number {
    return this.#readConfig(offset, 4)
  }
  setConfig16(offset: number, value: number): void {
    this.#access.writeConfig(offset, this.#split(value, 2))
  }

  bar8(bar: number, offset: number): number {
    return this.#readBar(bar, offset, 1)
  }
  bar16(bar: number, offset: number): number {
    return this.#readBar(bar, offset, 2)
  }
  bar32(bar: number, offset: number): number {
    return this.#readBar(bar, offset, 4)
  }
  setBar8(bar: number, offset: number, value: number): void {
    this.#access.writeBar(bar, offset, this.#split(value, 1))
  }
  setBar16(bar: number, offset: number, value: number): void {
    this.#access.writeBar(bar, offset, this.#split(value, 2))
  }
  setBar32(bar: number, offset: number, value: number): void {
    this.#access.writeBar(bar, offset, this.#split(value, 4))
  }

  #readConfig(offset: number, width: number): number {
    const bytes = this.#bytes[width]!
    this.#access.readConfig(offset, bytes)
    return join(bytes)
  }

  #readBar(bar: number, offset: number, width: number): number {
    const bytes = this.#bytes[width]!
    this.#access.readBar(bar, offset, bytes)
    return join(bytes)
  }

  #split(value: number, width: number): Uint8Array {
    const bytes = this.#bytes[width]!
    for (let i = 0; i < width; i++) bytes[i] = value >>> (8 * i)
    return bytes
  }
}

function join(bytes: Uint8Array): number {
  let value = 0
  for (let i = bytes.length - 1; i >= 0; i--) value = value * 256 + bytes[i]!
  return value
}
