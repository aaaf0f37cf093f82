/**
 * A machine that is nothing but memory and one PCI function: the device half without a VMM, for our own driver half in
 * the same process and for tests. Imports nothing of Node.
 *
 * Interrupts are never delivered from inside an access: they wait for their turn, as on a machine, where the guest's
 * handler runs on another processor.
 */

import type { GuestMemory, Region } from '../../mem/guest-memory.ts'
import type { PciFunction } from '../pci/function.ts'

/** Who handles the machine's interrupts. */
export interface LoopbackCpu {
  /** MSI-X vector n. */
  interrupt(vector: number): void
  /** The INTx pin is up; false when nothing was found to be done. */
  intx(): boolean
}

export interface LoopbackOptions {
  /** First bus address of `allocate`; default 4 GiB, so that both halves of an address count. */
  base?: number
  /** Runs the pending interrupts after the current call. Default: queueMicrotask. */
  schedule?: (deliver: () => void) => void
}

const BASE = 2 ** 32
const PAGE = 4096

export class LoopbackMachine {
  readonly function: PciFunction
  readonly memory: GuestMemory
  /** Interrupts that fired, MSI-X by vector, for tests that count. */
  readonly fired: number[] = []
  /** Times the pin was up and the handler found nothing to do: a machine disables such a line after a while. */
  spurious = 0
  readonly #schedule: (deliver: () => void) => void
  readonly #pending = new Set<number>()
  #next: number
  #cpu: LoopbackCpu | undefined
  #level = false
  #scheduled = false

  constructor(fn: PciFunction, memory: GuestMemory, options: LoopbackOptions = {}) {
    this.function = fn
    this.memory = memory
    this.#next = options.base ?? BASE
    this.#schedule = options.schedule ?? queueMicrotask
    fn.connectIrq({
      msix: (vector) => {
        this.fired[vector] = (this.fired[vector] ?? 0) + 1
        this.#pending.add(vector)
        this.#wake()
      },
      intx: (level) => {
        this.#level = level
        if (level) this.#wake()
      },
    })
  }

  /** Level of the INTx pin. */
  get level(): boolean {
    return this.#level
  }

  /** Pages of the machine, zeroed, in the device's map at a bus address of their own. */
  allocate(len: number): Region {
    const size = Math.ceil(len / PAGE) * PAGE
    const region = { base: this.#next, size, bytes: new Uint8Array(size), address: 0, writable: true }
    // A hole behind each, so that nothing runs from one into the next by luck.
    this.#next += size + PAGE
    this.memory.add(region)
    return region
  }

  connectCpu(cpu: LoopbackCpu | undefined): void {
    this.#cpu = cpu
    this.#wake()
  }

  /** Delivers what is pending; normally called by `schedule`. */
  deliver(): void {
    this.#scheduled = false
    const cpu = this.#cpu
    if (!cpu) return
    const vectors = [...this.#pending]
    this.#pending.clear()
    for (const vector of vectors) cpu.interrupt(vector)
    if (!this.#level) return
    if (!cpu.intx()) this.spurious++
    // A level that is still there comes again.
    if (this.#level) this.#wake()
  }

  #wake(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    this.#schedule(() => this.deliver())
  }
}
