/**
 * Register files as tables: a register is a width, a way to read it and perhaps a way to write it; offsets follow from
 * the order. Any access works, whatever its width and place (§4.1.3.1 asks drivers for natural ones, and some lie):
 * parts of a register read as those bytes of it, and are written into those bytes of it.
 */

export interface Register<Owner> {
  readonly name: string
  /** Bytes: 1, 2 or 4. */
  readonly width: 1 | 2 | 4
  readonly read: (owner: Owner) => number
  readonly write: ((owner: Owner, value: number) => void) | undefined
}

export function register<Owner>(
  name: string,
  width: 1 | 2 | 4,
  read: (owner: Owner) => number,
  write?: (owner: Owner, value: number) => void,
): Register<Owner> {
  return { name, width, read, write }
}

export class RegisterFile<Owner> {
  readonly len: number
  /** For each byte the register it belongs to, and where that starts. */
  readonly #at: { register: Register<Owner>; start: number }[] = []

  constructor(registers: readonly Register<Owner>[]) {
    let start = 0
    for (const entry of registers) {
      if (start % entry.width !== 0) throw new Error(`register ${entry.name} is not aligned at ${start}`)
      for (let i = 0; i < entry.width; i++) this.#at.push({ register: entry, start })
      start += entry.width
    }
    this.len = start
  }

  read(owner: Owner, offset: number, out: Uint8Array): void {
    for (let i = 0; i < out.length;) {
      const entry = this.#at[offset + i]
      if (!entry) {
        out[i++] = 0
        continue
      }
      const value = entry.register.read(owner)
      const end = Math.min(out.length, entry.start + entry.register.width - offset)
      for (; i < end; i++) out[i] = value >>> (8 * (offset + i - entry.start))
    }
  }

  write(owner: Owner, offset: number, data: Uint8Array): void {
    for (let i = 0; i < data.length;) {
      const entry = this.#at[offset + i]
      if (!entry) {
        i++
        continue
      }
      const { register: target, start } = entry
      const end = Math.min(data.length, start + target.width - offset)
      const whole = offset + i === start && end - i === target.width
      let value = whole || !target.write ? 0 : target.read(owner)
      for (; i < end; i++) {
        const shift = 8 * (offset + i - start)
        value = (value & ~(0xff << shift)) | (data[i]! << shift)
      }
      target.write?.(owner, value >>> 0)
    }
  }
}
