/**
 * PCI as firmware sees it, through qtest: configuration space behind ports 0xcf8 and 0xcfc, and addresses for the memory
 * BARs of the functions that are used. Without a guest nobody else sets them up.
 */

import { VmchannelError } from '../../../errors.ts'
import {
  PCI_BASE_ADDRESS_0,
  PCI_BAR_MEM_64,
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MEMORY,
} from '../../../spec/pci.ts'
import type { PciAccess } from '../../pci-registers.ts'
import type { AccessWidth, QtestClient } from './client.ts'

const CONFIG_ADDRESS = 0xcf8
const CONFIG_DATA = 0xcfc
const CONFIG_ENABLE = 0x8000_0000
const NOBODY = 0xffff
const BARS = 6
const BAR_IO = 1
const BAR_TYPE = 6

/** A function's place on bus 0. */
export interface PciPlace {
  slot: number
  function?: number
}

export interface PciBusOptions {
  /** Where BARs go: a part of the machine's 32-bit PCI window. */
  windowBase?: number
  windowEnd?: number
}

export class QtestPciBus {
  readonly client: QtestClient
  #next: number
  readonly #end: number
  readonly #places = new Map<string, number>()

  constructor(client: QtestClient, { windowBase = 0xe000_0000, windowEnd = 0xfe00_0000 }: PciBusOptions = {}) {
    this.client = client
    this.#next = windowBase
    this.#end = windowEnd
  }

  /** Functions on bus 0 with one of these ids, vendor in the low half. */
  find(ids: readonly number[]): PciPlace[] {
    const found: PciPlace[] = []
    for (let slot = 0; slot < 32; slot++) if (ids.includes(this.#config(slot << 3, 0, 4))) found.push({ slot })
    return found
  }

  /** A function with its memory BARs in place. */
  open(place: PciPlace): PciAccess {
    const devfn = (place.slot << 3) | (place.function ?? 0)
    if (this.#config(devfn, 0, 2) === NOBODY)
      throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `there is no PCI function at slot ${place.slot} of bus 0`)
    const command = this.#config(devfn, PCI_COMMAND, 2) & ~(PCI_COMMAND_MEMORY | PCI_COMMAND_IO)
    this.#setConfig(devfn, PCI_COMMAND, 2, command)
    const bars = this.#placeBars(devfn)
    this.#setConfig(devfn, PCI_COMMAND, 2, command | PCI_COMMAND_MEMORY)
    const { client } = this
    return {
      barSizes: bars.map(({ size }) => size),
      readConfig: (offset, out) => split(offset, out, (at, width) => this.#config(devfn, at, width)),
      writeConfig: (offset, data) => join(offset, data, (at, width, value) => this.#setConfig(devfn, at, width, value)),
      readBar: (bar, offset, out) => split(offset, out, (at, width) => client.read(bars[bar]!.base + at, width)),
      writeBar: (bar, offset, data) =>
        join(offset, data, (at, width, value) => client.write(bars[bar]!.base + at, width, value)),
    }
  }

  /** Where a memory BAR lies after `open`. */
  barAddress(place: PciPlace, bar: number): number {
    return this.#config((place.slot << 3) | (place.function ?? 0), PCI_BASE_ADDRESS_0 + 4 * bar, 4) & ~0xf
  }

  /** Finds the sizes by writing ones (PCI 3.0, §6.2.5.1). A BAR in I/O space is left alone: nothing modern needs it. */
  #placeBars(devfn: number): { base: number; size: number }[] {
    const bars = Array.from({ length: BARS }, () => ({ base: 0, size: 0 }))
    for (let bar = 0; bar < BARS; bar++) {
      const at = PCI_BASE_ADDRESS_0 + 4 * bar
      this.#setConfig(devfn, at, 4, 0xffff_ffff)
      const mask = this.#config(devfn, at, 4)
      this.#setConfig(devfn, at, 4, 0)
      if (mask === 0 || mask & BAR_IO) continue
      const size = (~(mask & ~0xf) >>> 0) + 1
      const base = this.#take(`${devfn} ${bar} ${size}`, size)
      this.#setConfig(devfn, at, 4, base)
      bars[bar] = { base, size }
      if ((mask & BAR_TYPE) === PCI_BAR_MEM_64) this.#setConfig(devfn, PCI_BASE_ADDRESS_0 + 4 * ++bar, 4, 0)
    }
    return bars
  }

  /** The same BAR comes to lie at the same place after a reset of the machine. */
  #take(key: string, size: number): number {
    const known = this.#places.get(key)
    if (known !== undefined) return known
    const base = Math.ceil(this.#next / size) * size
    if (base + size > this.#end)
      throw new VmchannelError('ERR_VMCHANNEL_MEMORY', `no room for a PCI BAR of ${size} bytes below ${this.#end}`)
    this.#next = base + size
    this.#places.set(key, base)
    return base
  }

  #config(devfn: number, offset: number, width: AccessWidth): number {
    this.client.out(CONFIG_ADDRESS, 4, CONFIG_ENABLE + (devfn << 8) + (offset & 0xfc))
    return this.client.in(CONFIG_DATA + (offset & 3), width)
  }

  #setConfig(devfn: number, offset: number, width: AccessWidth, value: number): void {
    this.client.out(CONFIG_ADDRESS, 4, CONFIG_ENABLE + (devfn << 8) + (offset & 0xfc))
    this.client.out(CONFIG_DATA + (offset & 3), width, value)
  }
}

/** The widest access that fits at `offset`. */
function widthAt(offset: number, left: number): AccessWidth {
  if (left >= 4 && offset % 4 === 0) return 4
  return left >= 2 && offset % 2 === 0 ? 2 : 1
}

function split(offset: number, out: Uint8Array, read: (at: number, width: AccessWidth) => number): void {
  for (let done = 0; done < out.length;) {
    const width = widthAt(offset + done, out.length - done)
    const value = read(offset + done, width)
    for (let i = 0; i < width; i++) out[done + i] = value >>> (8 * i)
    done += width
  }
}

function join(offset: number, data: Uint8Array, write: (at: number, width: AccessWidth, value: number) => void): void {
  for (let done = 0; done < data.length;) {
    const width = widthAt(offset + done, data.length - done)
    let value = 0
    for (let i = width - 1; i >= 0; i--) value = value * 256 + data[done + i]!
    write(offset + done, width, value)
    done += width
  }
}
